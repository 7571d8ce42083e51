"""What is known of a run at a moment, wherever that was read, and the figures of it that are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from launch.units import bytes_text, seconds_text

Record = Mapping[str, float]
"""A report: its figures by the names that they have in ``metrics.jsonl``. What is not known is not in it."""


class RankState(NamedTuple):
    """One rank, by the address of its endpoint; ``figures`` are its own, and None while it does not answer."""

    address: str
    figures: Record | None


@dataclass(frozen=True)
class Course:
    """A run: its latest reports, the last of them the present, and what stands beside them.

    ``note`` says what is out of the ordinary, that the run has ended among it. ``is_over``: nothing more will come.
    """

    run: str
    facts: Sequence[str] = ()
    records: Sequence[Record] = ()
    saved_timestamp_seconds: float | None = None
    ranks: Sequence[RankState] = ()
    note: str = ""
    is_over: bool = False


class Figure(NamedTuple):
    """A figure by its name in a report. ``is_drawn``: with its course over the last reports."""

    key: str
    title: str
    is_drawn: bool = False


FIGURES = (
    Figure("images_per_second", "images/s", is_drawn=True),
    Figure("loss", "loss", is_drawn=True),
    Figure("median_target_angle_radians", "target angle", is_drawn=True),
    Figure("scale", "scale"),
    Figure("near_per_image", "near classes"),
    Figure("gradient_norm", "gradient norm"),
    Figure("learning_rate", "learning rate"),
    Figure("row_learning_rate", "rate of the rows"),
    Figure("step_seconds", "a step"),
    Figure("data_wait_ratio", "waits for data"),
    Figure("forward_seconds", "forward"),
    Figure("head_seconds", "classifier"),
    Figure("backward_seconds", "backward"),
    Figure("update_seconds", "update"),
    Figure("collective_seconds", "collectives"),
    Figure("collective_bytes", "bytes sent"),
    Figure("peak_memory_bytes", "peak memory"),
    Figure("goodput_ratio", "goodput"),
    Figure("slowest_rank", "slowest rank"),
    Figure("slowest_rank_lag_seconds", "its lag"),
    Figure("skipped_steps", "skipped steps"),
    Figure("bad_images", "bad images"),
)
_OF_THE_HEADER = {"step", "total_steps", "stage", "epoch", "seconds_left", "timestamp_seconds"}
_NOT_SHOWN = {"images", "interval_images", "interval_steps", "data_wait_seconds", "own_step_seconds"}


def shown_figures(record: Record) -> list[Figure]:
    """The figures of ``record`` to show: those of the table, then those that it does not know, as of an objective."""
    known = {figure.key for figure in FIGURES} | _OF_THE_HEADER | _NOT_SHOWN
    others = [Figure(key, _title(key)) for key in record if key not in known]
    return [figure for figure in (*FIGURES, *others) if figure.key in record]


def text_of(key: str, value: float) -> str:
    """``value`` in the unit that the name ``key`` ends in."""
    if not math.isfinite(value):
        return "not finite"
    if key.endswith("_seconds"):
        return seconds_text(value) if value else "0 s"
    if key.endswith("_bytes"):
        return bytes_text(value)
    if key.endswith("_radians"):
        return f"{math.degrees(value):.1f} deg"  # not every terminal takes "°"
    if key.endswith("_ratio"):
        return f"{100 * value:.1f} %"
    if key == "loss":
        return f"{value:.4f}"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.4g}"


def _title(key: str) -> str:
    for unit in ("_seconds", "_bytes", "_radians", "_ratio"):
        key = key.removesuffix(unit)
    return key.replace("_", " ")
