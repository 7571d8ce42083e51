"""A line of JSON per interval."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from partial_fc.reports.step_report import StepReport

_LONGEST_LINE_BYTES = 1 << 16


class JsonLinesSink:
    """One JSON object per report and line, at the end of ``path``; its folder is made if missing.

    A last line without its end, left by a process that was killed while writing, is removed first. After a resume
    some steps stand there twice: the later line is the one that counts. ValueError if ``path`` holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(self._path)
        self._file = self._path.open("a", encoding="utf-8")

    def write(self, report: StepReport) -> None:
        """Append the report's line and flush it."""
        line = json.dumps(json_record(report), allow_nan=False) + "\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:  # of a full disk: it names no file
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def close(self) -> None:
        """Close the file; what a full disk did not take is lost, and was told by :meth:`write`."""
        with suppress(OSError):
            self._file.close()


def json_record(report: StepReport) -> dict[str, int | float | None]:
    """The report as what JSON can say: extra figures beside the others, None for NaN and infinities.

    The single steps' durations are left out, but for the means of their phases: they would be nearly all of the file.
    So is what is one rank's alone.
    """
    of_rank = {"interval_bad_images_of_rank", "interval_collective_bytes_of_rank", "own_step_seconds"}
    of_steps = {"step_seconds_of_steps", "data_wait_seconds_of_steps", "phase_seconds_of_steps"}
    left_out = {"extra", "seconds_spent", *of_steps, *of_rank}
    flat = {f.name: getattr(report, f.name) for f in fields(report) if f.name not in left_out}
    flat |= report.phase_seconds() | {f"{cause}_spent_seconds": each for cause, each in report.seconds_spent.items()}
    flat |= report.extra
    return {name: value if value is not None and math.isfinite(value) else None for name, value in flat.items()}


def cut_torn_line(path: Path) -> None:
    """Remove what a process that was killed left behind the last whole line. ValueError for a file of other things."""
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
