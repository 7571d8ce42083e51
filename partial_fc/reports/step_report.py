"""What a run tells about itself: one StepReport per interval, and the sinks that decide what to do with it.

The loop gets its reports from a ``Meter`` (``meter.py``) and hands each to every sink. The loop knows no progress bar,
no file and no Prometheus (``prometheus.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from partial_fc.reports.time_spent import Cause

Phase = Literal["forward", "head", "backward", "update", "collective"]


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """The figures of one interval of steps; each is the mean over the interval unless its name says otherwise.

    ``step`` and ``images`` are the whole run's so far, resumed parts included; ``images`` and ``images_per_second``
    count all ranks. ``step_seconds`` is from the end of one step to the end of the next and holds the
    ``data_wait_seconds``; ``seconds_left`` goes on at that pace, the process's first step left out of it. ``scale`` and
    the target angle are None for objectives without them. ``skipped_steps`` is how many updated no weight since the
    process started, as their loss was no good; ``loss`` is their mean too. ``stage`` is that of the run's schedule,
    from 1, and that of all steps of the interval. ``bad_images`` is how many of the images of all ranks had to be
    replaced by others since their processes started, ``interval_bad_images_of_rank`` how many of this rank's in the
    interval. ``own_step_seconds`` is the part of a step that this rank needs alone, when no other rank can hold it up;
    ``slowest_rank`` needs most of all ranks, ``slowest_rank_lag_seconds`` more than their median does: about what the
    others wait for it in each step. ``gradient_norm`` is that of the backbone's whole gradient before it is clipped,
    None where none is. ``interval_collective_bytes_of_rank`` is what this rank's collectives carried in the interval;
    ``peak_memory_bytes`` the most that this process has had, allocated on a GPU or resident on a host.
    ``seconds_spent`` is what the run's time was spent on since its first start, ``goodput_ratio`` the share of
    training in it. ``extra`` holds what only some objective has (``scale_capped``): snake_case names, none of a field.
    ``*_of_steps`` are the single steps' durations, oldest first, or empty where only the mean is
    known. ``phase_seconds_of_steps`` are those of the phases: ``forward`` of the backbone, ``head`` with its own
    backward pass, ``backward`` of the backbone with the sum of its gradients over the ranks, ``update`` of its weights;
    steps that were skipped have no more than the first two. ``collective`` lies inside the others: how long the rank
    stood still for collectives.
    """

    step: int
    total_steps: int
    epoch: float
    images: int
    interval_steps: int
    interval_images: int
    images_per_second: float
    step_seconds: float
    data_wait_seconds: float
    loss: float
    scale: float | None = None
    median_target_angle_radians: float | None = None
    learning_rate: float
    row_learning_rate: float
    seconds_left: float
    timestamp_seconds: float
    skipped_steps: int = 0
    stage: int = 1
    bad_images: int = 0
    interval_bad_images_of_rank: int = 0
    own_step_seconds: float = 0.0
    slowest_rank: int = 0
    slowest_rank_lag_seconds: float = 0.0
    gradient_norm: float | None = None
    interval_collective_bytes_of_rank: int = 0
    peak_memory_bytes: int | None = None
    seconds_spent: Mapping[Cause, float] = field(default_factory=dict)
    goodput_ratio: float | None = None
    extra: Mapping[str, float] = field(default_factory=dict)
    step_seconds_of_steps: tuple[float, ...] = ()
    data_wait_seconds_of_steps: tuple[float, ...] = ()
    phase_seconds_of_steps: Mapping[Phase, tuple[float, ...]] = field(default_factory=dict)

    def phase_seconds(self) -> dict[str, float]:
        """The mean of each phase over the steps that had it, by the name ``head_seconds``."""
        return {
            f"{phase}_seconds": sum(each) / len(each) for phase, each in self.phase_seconds_of_steps.items() if each
        }

    def __post_init__(self) -> None:
        taken = {f.name for f in fields(self)}
        for name in self.extra:
            if name in taken or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"extra figures have snake_case names that no field of StepReport has, got {name!r}")


class RankFigures(NamedTuple):
    """What the ranks tell each other for a report.

    Each one's own seconds of a step; how long that one waited for data in the interval that waited longest; images
    replaced here and on all of them.
    """

    own_step_seconds: tuple[float, ...]
    longest_data_wait_seconds: float
    bad_images_of_rank: int
    bad_images: int


@runtime_checkable
class Sink(Protocol):
    """Where reports go. ``write`` must not wait for anybody; after ``close`` there is no more ``write``."""

    def write(self, report: StepReport) -> None:
        """Pass the report on."""

    def close(self) -> None:
        """Give back what the sink holds; calling it twice is fine."""
