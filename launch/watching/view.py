"""A run as a terminal shows it: where it is, what it does, and how that went over the last reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import zip_longest

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from launch.units import seconds_text
from launch.watching.course import Course, Figure, RankState, Record, shown_figures, text_of

BLOCKS = "▁▂▃▄▅▆▇█"
_TITLE_WIDTH, _VALUE_WIDTH, _COLUMN_WIDTH = 17, 12, 36
_LATE_SECONDS = 60.0  # a report that is older is said to be, where a report usually takes less
_WARNED_OF = {"skipped_steps", "bad_images"}


class View:
    """What is shown of ``course`` at the moment ``now_seconds``, as wide as the terminal."""

    def __init__(self, course: Course, now_seconds: float) -> None:
        self._course, self._now_seconds = course, now_seconds

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        course, width = self._course, options.max_width
        yield Text("  ".join([course.run, *course.facts]), style="bold", overflow="ellipsis", no_wrap=True)
        if course.records:
            yield from self._figures(course.records, width, draws=not options.ascii_only)
        elif not course.note:
            yield Text("no report yet: the ranks meet, the network is compiled, or the first steps are under way")
        if course.ranks:
            yield Text()
            yield _table_of_ranks(course.ranks)
        if course.note:
            yield Text(course.note, style="bold yellow")

    def _figures(self, records: Sequence[Record], width: int, draws: bool) -> Iterable[RenderableType]:
        record = records[-1]
        yield _progress(record, width)
        yield Text("  ".join(self._places(records)))
        yield Text()
        figures = shown_figures(record)
        for figure in figures:
            if figure.is_drawn:
                values = [each.get(figure.key, math.nan) for each in records] if draws else []
                yield _drawn(figure, record, values, width - _TITLE_WIDTH - _VALUE_WIDTH - 2)
        yield Text()
        yield _in_columns([figure for figure in figures if not figure.is_drawn], record, width)

    def _places(self, records: Sequence[Record]) -> list[str]:
        """Where the run is, and how old what is shown is."""
        record, saved = records[-1], self._course.saved_timestamp_seconds
        age = max(self._now_seconds - record["timestamp_seconds"], 0.0)
        usual = record["timestamp_seconds"] - records[-2]["timestamp_seconds"] if len(records) > 1 else math.inf
        is_late = age > max(3 * usual, _LATE_SECONDS) and not self._course.note
        places = [f"stage {record['stage']:.0f}"] if "stage" in record else []
        places += [f"epoch {record['epoch']:.2f}"] if "epoch" in record else []
        places.append(f"last report {_age(age)} ago{', which is late' if is_late else ''}")
        return [*places, f"checkpoint {_age(self._now_seconds - saved)} old"] if saved else places


def sparkline(values: Sequence[float], width: int) -> str:
    """The last ``width`` of ``values`` as blocks, from the least to the largest of them; empty for a single value.

    What is not finite is a blank.
    """
    values = values[-width:] if len(values) > 1 else []
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    span = (high - low) or 1.0
    return "".join(
        BLOCKS[min(int((value - low) / span * len(BLOCKS)), len(BLOCKS) - 1)] if math.isfinite(value) else " "
        for value in values
    )


def _progress(record: Record, width: int) -> RenderableType:
    step, total, left = record["step"], record["total_steps"], record.get("seconds_left", math.inf)
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    time_left = f"{timedelta(seconds=round(left))} left" if math.isfinite(left) else "time left unknown"
    grid.add_row(
        f"step {step:,.0f}/{total:,.0f}",
        ProgressBar(total=total, completed=step, width=None if width > 60 else 10),
        f"{100 * step / max(total, 1):.1f} %  {time_left}",
    )
    return grid


def _drawn(figure: Figure, record: Record, values: Sequence[float], width: int) -> Text:
    value = text_of(figure.key, record[figure.key])
    return Text.assemble(
        (f"{figure.title:<{_TITLE_WIDTH}}", "dim"),
        (f"{value:>{_VALUE_WIDTH}}", "bold"),
        "  ",
        (sparkline(values, max(width, 1)), "cyan"),
    )


def _in_columns(figures: Sequence[Figure], record: Record, width: int) -> Table:
    """Title and value of each, read down the columns, as many of them as fit."""
    count = max(width // _COLUMN_WIDTH, 1)
    height = math.ceil(len(figures) / count)
    columns = [figures[start : start + height] for start in range(0, len(figures), max(height, 1))]
    grid = Table.grid(padding=0)
    for _ in columns:
        grid.add_column(width=_TITLE_WIDTH, style="dim", no_wrap=True)
        grid.add_column(width=_VALUE_WIDTH, justify="right", no_wrap=True)
        grid.add_column(width=_COLUMN_WIDTH - _TITLE_WIDTH - _VALUE_WIDTH)
    for row in zip_longest(*columns):
        cells = [cell for figure in row for cell in (_cells(figure, record) if figure else ("", "", ""))]
        grid.add_row(*cells)
    return grid


def _cells(figure: Figure, record: Record) -> tuple[RenderableType, RenderableType, RenderableType]:
    value = record[figure.key]
    is_warning = value != 0 and figure.key in _WARNED_OF
    return figure.title, Text(text_of(figure.key, value), style="bold yellow" if is_warning else ""), ""


def _table_of_ranks(ranks: Sequence[RankState]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    keys = {
        "step": "step",
        "images_per_second": "images/s",
        "step_seconds": "a step",
        "own_step_seconds": "alone",
        "data_wait_ratio": "for data",
        "bad_images": "bad images",
    }
    table.add_column("endpoint", no_wrap=True)
    for title in keys.values():
        table.add_column(title, justify="right", no_wrap=True)
    for address, figures in ranks:
        if figures is None:
            table.add_row(address, Text("no answer", style="bold yellow"))
        else:
            table.add_row(address, *(text_of(key, figures[key]) if key in figures else "" for key in keys))
    return table


def _age(seconds: float) -> str:
    """A time that a person reads at a glance."""
    seconds = max(seconds, 0.0)
    return f"{seconds:.0f} s" if seconds < 100 else seconds_text(seconds)
