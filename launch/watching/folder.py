"""A run read from its folder: the reports in its ``metrics.jsonl``, which is followed while it grows."""

from __future__ import annotations

import json
import math
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from launch.config.loading import ConfigError, load_config
from launch.config.stages import objectives_in_words
from launch.run_files import RunFiles
from launch.watching.course import Course, Record

_READ_BYTES = 1 << 20  # of the end of a long file: some thousand reports
_MOST_RECORDS = 1000


class WatchedFolder:
    """The run in the folder ``path``, on this machine or on a disk that it shares. ValueError where there is none."""

    def __init__(self, path: Path) -> None:
        self._files = RunFiles(path)
        if not path.is_dir() or not (self._files.holds_run() or self._files.lock.exists()):
            raise ValueError(f"{path} is no run: expected the folder of one, its run_dir, or http://HOST:PORT/metrics")
        self._reports = _Reports(self._files.metrics)

    def course(self) -> Course:
        """What is known by now. ValueError where the file of reports holds something else."""
        is_written = self._files.is_written()  # before the reports: those of a run that ends in between are all there
        records = self._reports.read()
        note, is_over = _ending(records, is_written, has_evaluation=self._files.evaluation.exists())
        return Course(
            run=str(self._files.path),
            facts=self._facts(),
            records=records,
            saved_timestamp_seconds=self._saved_timestamp_seconds(),
            note=note,
            is_over=is_over,
        )

    def _facts(self) -> list[str]:
        with suppress(ConfigError, OSError):  # not written yet, or another version's
            return [objectives_in_words(load_config(self._files.config))]
        return []

    def _saved_timestamp_seconds(self) -> float | None:
        """When the last checkpoint was whole: its manifest is the last file written."""
        with suppress(OSError):
            return (self._files.checkpoints / "latest" / "manifest.json").stat().st_mtime
        return None


class _Reports:
    """The reports of a file, read on from where the last reading ended; a file that was begun anew, from its start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity, self._next_byte = (0, 0), 0
        self._records: deque[Record] = deque(maxlen=_MOST_RECORDS)

    def read(self) -> list[Record]:
        """All reports so far, the latest at most; none where the file is not there."""
        with suppress(FileNotFoundError):
            self._read_on()
        return list(self._records)

    def _read_on(self) -> None:
        with self._path.open("rb") as file:
            status = self._path.stat()
            if self._identity != (status.st_dev, status.st_ino) or status.st_size < self._next_byte:
                self._identity = status.st_dev, status.st_ino
                self._next_byte = max(status.st_size - _READ_BYTES, 0)
                self._records.clear()
            first_byte = file.seek(self._next_byte)
            whole = file.read().rpartition(b"\n")[0]  # a last line may be in the writing
        is_cut = first_byte > 0 and not self._records
        for line in whole.split(b"\n")[is_cut:] if whole else ():
            self._take(line)
        self._next_byte += len(whole) + bool(whole)

    def _take(self, line: bytes) -> None:
        """A resumed run does some steps again: what was reported of them before counts no more."""
        record = _record(line, self._path)
        while self._records and self._records[-1]["step"] >= record["step"]:
            self._records.pop()
        self._records.append(record)


def _record(line: bytes, path: Path) -> Record:
    try:
        given: dict[str, Any] = json.loads(line)
        record = {key: float(value) for key, value in given.items() if value is not None}
        return {
            "loss": math.nan,  # JSON has no word for it
            "data_wait_ratio": record["data_wait_seconds"] / record["step_seconds"],
            **record,
            "step": record["step"],
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} has a line that is no report: {line[:60].decode(errors='replace')!r}") from error


def _ending(records: list[Record], is_written: bool, has_evaluation: bool) -> tuple[str, bool]:
    """What is to be said of the run's end, and whether nothing more will come."""
    is_done = bool(records) and records[-1]["step"] >= records[-1]["total_steps"]
    if is_written:
        return ("all steps are done; the run saves or is evaluated" if is_done else ""), False
    if is_done:
        return f"the run has ended: all steps are done{' and it is evaluated' if has_evaluation else ''}", True
    return "no process writes here: the run has ended before its last step", False
