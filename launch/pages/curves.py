"""The course of a run as curves, drawn as the page's other figures are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from launch.pages.figures import ACCENT, DOTS, MUTED, SMALL, STYLE, inline_svg, new_axes

MOST_POINTS = 1200  # of one curve: more cannot be told apart at the width of a page


class Curve(NamedTuple):
    """One quantity of a run over its steps: its heading, its last value as text, and the drawing."""

    name: str
    last: str
    svg: str


def stage_begins(metrics: Sequence[Mapping[str, Any]], stages: Sequence[str]) -> list[tuple[int, str]]:
    """The steps done when each stage but the first began, as far as the records tell, and the stage's name."""
    records, begins = _by_step(metrics), list[tuple[int, str]]()
    for before, after in pairwise(records):
        number = int(after.get("stage") or 1)
        if number != (before.get("stage") or 1) and number <= len(stages):
            begins.append((int(before["step"]), stages[number - 1]))
    return begins


def _by_step(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records in the order of their steps; of a step that was run twice the last one."""
    by_step = {int(record["step"]): record for record in metrics if record.get("step") is not None}
    return [by_step[step] for step in sorted(by_step)]


def training_curves(metrics: Sequence[Mapping[str, Any]], stages: Sequence[str] = ()) -> list[Curve]:
    """The curves of those quantities that the records hold; of a step that was run twice the last record counts.

    A thin line with its name, of ``stages``, stands where each stage of the run but the first begins.
    """
    records, begins = _by_step(metrics), stage_begins(metrics, stages)
    quantities: list[tuple[str, str, float, Callable[[float], str]]] = [
        ("loss", "Loss", 1, "{:.4g}".format),
        ("scale", "Scale s", 1, "{:.2f}".format),
        ("median_target_angle_radians", "Median target angle", 180 / math.pi, "{:.1f}°".format),
        ("images_per_second", "Images per second", 1, "{:,.0f}".format),
        ("learning_rate", "Learning rate", 1, "{:.3g}".format),
        ("goodput_ratio", "Goodput so far", 100, "{:.1f} %".format),
    ]
    curves = []
    for key, name, unit, text in quantities:
        points = [(record["step"], record[key] * unit) for record in records if record.get(key) is not None]
        steps_values = np.array([point for point in points if math.isfinite(point[1])], dtype=np.float64)
        if len(steps_values) > 0:
            svg = _curve_figure(name, _thinned(steps_values), key, begins)
            curves.append(Curve(name, text(float(steps_values[-1, 1])), svg))
    return curves


def evaluation_curves(evaluations: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """The first measure of each set, rank-1 or accuracy, over the steps; of a step measured twice the last counts."""
    points: dict[str, list[tuple[int, float]]] = {}
    for record in _by_step(evaluations):
        for name in (name for name in record if name.endswith((".rank1", ".accuracy"))):
            points.setdefault(name.replace(".rank1", ": rank-1").replace(".", ": "), []).append(
                (record["step"], record[name])
            )
    return [
        Curve(name, f"{found[-1][1]:.4f}", _curve_figure(name, np.array(found, dtype=np.float64), name))
        for name, found in points.items()
    ]


def _curve_figure(
    name: str, steps_values: NDArray[np.float64], key: str, begins: Sequence[tuple[int, str]] = ()
) -> str:
    with matplotlib.rc_context(STYLE):
        axes = new_axes(SMALL)
        steps, values = steps_values.T
        axes.plot(steps, values, color=ACCENT, marker="o" if len(steps) == 1 else None, markersize=4)
        if key == "median_target_angle_radians":
            axes.axhline(45, color=MUTED, linewidth=1.2, linestyle=DOTS)
            axes.set_ylim(0, max(95.0, float(values.max()) * 1.03))
            axes.set_yticks([0, 45, 90], ["0°", "45°", "90°"])
        else:
            low, high = float(values.min()), float(values.max())
            margin = 0.07 * (high - low) or abs(high) * 0.1 or 1.0
            # A rate or a loss that halved is read against zero; a scale that moves by a tenth is not.
            from_zero = low >= 0 and (low < 0.5 * high or key == "images_per_second")
            axes.set_ylim(0 if from_zero else low - margin, high + margin)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        for step, stage in begins:
            axes.axvline(step, color=MUTED, linewidth=0.8)
            beside = axes.get_xaxis_transform()
            axes.text(step, 0.98, stage, transform=beside, rotation=90, ha="left", va="top", size=8, color=MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("step")
        return inline_svg(axes, f"{name} over the steps of the run")


def _thinned(steps_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lowest and the highest point of each stretch, so that no spike is lost."""
    if len(steps_values) <= MOST_POINTS:
        return steps_values
    keep = {0, len(steps_values) - 1}
    for stretch in np.array_split(np.arange(len(steps_values)), MOST_POINTS // 2 - 1):
        values = steps_values[stretch, 1]
        keep |= {int(stretch[values.argmin()]), int(stretch[values.argmax()])}
    return steps_values[sorted(keep)]
