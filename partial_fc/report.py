"""What a run tells about itself: one StepReport per interval, and the sinks that decide what to do with it.

The loop gets its reports from a ``Meter`` (``meter.py``) and hands each to every sink; it knows no progress bar, no
file and no Prometheus (``prometheus.py``).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_LONGEST_LINE_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """The figures of one interval of steps; each is the mean over the interval unless its name says otherwise.

    ``step`` and ``images`` are the whole run's so far, resumed parts included; ``images`` and ``images_per_second``
    count all ranks. ``step_seconds`` is from the end of one step to the end of the next and holds the
    ``data_wait_seconds``; ``seconds_left`` goes on at that pace, the process's first step left out of it. ``scale`` and
    the target angle are None for objectives without them. ``bad_images`` is how many of the images that all ranks saw
    since their processes started had to be replaced by others, ``interval_bad_images_of_rank`` how many of this rank's
    in the interval. ``extra`` holds what only some objective has (``scale_capped``): snake_case names, none of a field.
    ``*_of_steps`` are the single steps' durations, oldest first, or empty where only the mean is known.
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
    bad_images: int = 0
    interval_bad_images_of_rank: int = 0
    extra: Mapping[str, float] = field(default_factory=dict)
    step_seconds_of_steps: tuple[float, ...] = ()
    data_wait_seconds_of_steps: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        taken = {f.name for f in fields(self)}
        for name in self.extra:
            if name in taken or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"extra figures have snake_case names that no field of StepReport has, got {name!r}")


@runtime_checkable
class Sink(Protocol):
    """Where reports go. ``write`` must not wait for anybody; after ``close`` there is no more ``write``."""

    def write(self, report: StepReport) -> None:
        """Pass the report on."""

    def close(self) -> None:
        """Give back what the sink holds; calling it twice is fine."""


class TerminalSink:
    """A live progress line where ``console`` (standard output unless given) is a terminal, else a line per report.

    Meant for one rank of the run. The live line is drawn only by ``write``: no thread of its own.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._progress: Progress | None = None

    def write(self, report: StepReport) -> None:
        """Show the report."""
        if not self._console.is_terminal:
            line = f"step {report.step}/{report.total_steps}  {figures_line(report)}"
            print(line, file=self._console.file, flush=True)
            return
        if self._progress is None:
            self._progress = _progress(self._console, report.total_steps)
        self._progress.update(self._progress.task_ids[0], completed=report.step, figures=figures_line(report))
        self._progress.refresh()

    def close(self) -> None:
        """Leave the line as it stands and the cursor below it."""
        if self._progress is not None:
            self._progress.stop()


class JsonLinesSink:
    """One JSON object per report and line, at the end of ``path``; its folder is made if missing.

    A last line without its end, left by a process that was killed while writing, is removed first. After a resume
    some steps stand there twice: the later line is the one that counts. ValueError if ``path`` holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(self._path)
        self._file = self._path.open("a", encoding="utf-8")

    def write(self, report: StepReport) -> None:
        """Append the report's line and flush it."""
        self._file.write(json.dumps(json_record(report), allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def figures_line(report: StepReport) -> str:
    """The figures a person watches, in one line: images per second, loss, scale, angle, bad images, time left.

    A scale that was cut off at its cap is said to be: training diverges then, though its loss stays finite.
    """
    figures = [f"{report.images_per_second:,.0f} images/s", f"loss {report.loss:.4f}"]
    if report.scale is not None:
        figures.append(f"scale {report.scale:.2f}{' (at its cap)' if report.extra.get('scale_capped') else ''}")
    if report.median_target_angle_radians is not None:
        figures.append(f"angle {math.degrees(report.median_target_angle_radians):.1f} deg")  # not every log takes "°"
    if report.bad_images:
        figures.append(f"{report.bad_images:,} bad images")
    left = timedelta(seconds=round(report.seconds_left)) if math.isfinite(report.seconds_left) else "unknown"
    return "  ".join([*figures, f"left {left}"])


def json_record(report: StepReport) -> dict[str, int | float | None]:
    """The report as what JSON can say: extra figures beside the others, None for NaN and infinities.

    The single steps' durations are left out: they would be nearly all of the file. So is what is one rank's alone.
    """
    left_out = {"extra", "step_seconds_of_steps", "data_wait_seconds_of_steps", "interval_bad_images_of_rank"}
    flat = {f.name: getattr(report, f.name) for f in fields(report) if f.name not in left_out} | dict(report.extra)
    return {name: value if value is not None and math.isfinite(value) else None for name, value in flat.items()}


def _progress(console: Console, total_steps: int) -> Progress:
    columns = (
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[figures]}"),
    )
    progress = Progress(*columns, console=console, auto_refresh=False)
    progress.add_task("", total=total_steps, figures="")
    progress.start()
    return progress


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _LONGEST_LINE_BYTES, 0))
        torn = file.read().rpartition(b"\n")[2]
        start = b'{"step": '
        if not (torn.startswith(start) or start.startswith(torn)):  # rather refuse than shorten somebody's other file
            raise ValueError(f"{path} ends in a line that is no report's; expected a file of reports or a new one")
        file.truncate(size - len(torn))
