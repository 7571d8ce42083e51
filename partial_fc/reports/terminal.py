"""A line on the screen per interval."""

from __future__ import annotations

import math
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from partial_fc.reports.step_report import StepReport

_CLEAR_LAG = 0.1  # of a step: less is not worth a person's time


class TerminalSink:
    """A live progress line where ``console`` (standard output unless given) is a terminal, else a line per report.

    Meant for one rank of the run. The live line is drawn only by ``write``: no thread of its own.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._progress: Progress | None = None
        self._earlier: StepReport | None = None

    def write(self, report: StepReport) -> None:
        """Show the report."""
        figures, self._earlier = figures_line(report, self._earlier), report
        if not self._console.is_terminal:
            line = f"step {report.step}/{report.total_steps}  {figures}"
            print(line, file=self._console.file, flush=True)
            return
        if self._progress is None:
            self._progress = _progress(self._console, report.total_steps)
        self._progress.update(self._progress.task_ids[0], completed=report.step, figures=figures)
        self._progress.refresh()

    def close(self) -> None:
        """Leave the line as it stands and the cursor below it."""
        if self._progress is not None:
            self._progress.stop()


def figures_line(report: StepReport, earlier: StepReport | None = None) -> str:
    """The figures a person watches, in one line: images per second, loss, scale, angle, near classes, time left.

    A rank that holds the others up for more than a tenth of each step is named, where it did so in the ``earlier``
    report too: in a single interval it may be chance. A scale that was cut off at its cap is said to be: training
    diverges then, though its loss stays finite.
    """
    figures = [f"{report.images_per_second:,.0f} images/s", f"loss {report.loss:.4f}"]
    if report.scale is not None:
        figures.append(f"scale {report.scale:.2f}{' (at its cap)' if report.extra.get('scale_capped') else ''}")
    if report.median_target_angle_radians is not None:
        figures.append(f"angle {math.degrees(report.median_target_angle_radians):.1f} deg")  # not every log takes "°"
    if (near := report.extra.get("near_per_image")) is not None:
        figures.append(f"{near:.3g} near classes")
    if report.skipped_steps:
        figures.append(f"{report.skipped_steps:,} skipped steps")
    if report.bad_images:
        figures.append(f"{report.bad_images:,} bad images")
    if (slow := _slow_rank(report)) is not None and earlier is not None and slow == _slow_rank(earlier):
        figures.append(f"rank {slow} is slow by {report.slowest_rank_lag_seconds:.2g} s a step")
    left = timedelta(seconds=round(report.seconds_left)) if math.isfinite(report.seconds_left) else "unknown"
    return "  ".join([*figures, f"left {left}"])


def _slow_rank(report: StepReport) -> int | None:
    is_clear = report.slowest_rank_lag_seconds > _CLEAR_LAG * report.step_seconds
    return report.slowest_rank if is_clear else None


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
