"""Parquet and Arrow files with a column of encoded images and one of labels, as Hugging Face data sets have them."""

from __future__ import annotations

import glob
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.formats.table.columns import checked_labels, chosen_columns, classes
from data_pipeline.formats.table.files import TableFile, table_file
from data_pipeline.formats.table.names import GUESSED, SUFFIXES, ColumnNames
from data_pipeline.source import Source

CACHED_BYTES = 256 << 20
LARGEST_GROUP_BYTES = 1 << 30
OPEN_FILES = 16
STATE, CACHES = "state.json", "cache-*.arrow"
NUMBERED = re.compile(r"(?P<before>.*)-(?P<number>\d+)-of-(?P<count>\d{1,6})")


class _Place(NamedTuple):
    """Where an image is: its file, a group of that, and its row in the group and in the file."""

    path: Path
    group: int
    row_in_group: int
    row: int


class TableSource(Source):
    """The rows of one file, of a folder or a pattern (`train-*.parquet`) in the order of names, or of the files given.

    The columns are found by their types and names, or are those named. Labels are integers, or texts that become
    0, 1, ... in their order. Opening reads the feet of the files and the column of labels: 0.6 us a row.

    Parquet is read by row groups, of which `cached_bytes` are kept: a read in random order mostly decodes a whole
    group for one image (0.4 ms at 100 rows, growing with them): write small ones (`row_group_size=100`), or pack into
    records once. Arrow files are mapped, an image costs its own bytes. Reads are safe from threads and in forked
    processes; a pickled source opens its files anew. ValueError names file and row.
    """

    def __init__(
        self,
        path: Path | Sequence[Path],
        *,
        columns: ColumnNames = GUESSED,
        cached_bytes: int = CACHED_BYTES,
    ) -> None:
        self.files = _table_paths(Path(path)) if isinstance(path, str | os.PathLike) else [Path(each) for each in path]
        first = table_file(self.files[0])
        where = str(self.files[0])
        self.image_column, self.label_column = chosen_columns(columns, first, self.files[0])
        self._cached_bytes = cached_bytes
        rows, labels = [np.zeros(1, np.int64)], []
        self._file_groups = np.zeros(len(self.files) + 1, np.int64)  # the first group of each file
        for at, each in enumerate(self.files):
            file = table_file(each)
            self._check(file, first, each)
            rows.append(np.array(file.group_rows, np.int64))
            self._file_groups[at + 1] = self._file_groups[at] + len(file.group_rows)
            labels.append(checked_labels(file.labels(self.label_column), file, each, self.label_column))
        self._group_rows = np.concatenate(rows).cumsum()  # the first row of each group
        self.labels, self.identities = classes(labels, where, self.label_column)
        if not self.labels.size:
            raise ValueError(f"{where}: no row; expected at least one image")
        self._groups = _Groups(cached_bytes)

    def read(self, sample: int) -> NDArray[np.uint8]:
        """The encoded bytes of one image, read-only."""
        if self._groups.process != os.getpid():  # after a fork the lock may be held by a thread that is not here
            self._groups = _Groups(self._cached_bytes)
        path, group, row, _ = self._place(sample)
        column = self._groups.images(path, group, self.image_column)
        if row >= len(column) or not column[row].is_valid:
            why = "holds no image bytes" if row < len(column) else "is gone: the file changed since it was opened"
            raise ValueError(f"{self.name(sample)} {why}")
        # A copy: a view would keep its whole group in memory for as long as the image lives.
        encoded = np.frombuffer(column[row].as_py(), np.uint8)
        if not encoded.size:
            raise ValueError(f"{self.name(sample)} is empty; expected encoded image bytes")
        return encoded

    def name(self, sample: int) -> str:
        """The file and the row, from 0, of one image."""
        place = self._place(sample)
        return f"{place.path} row {place.row}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_groups"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._groups = _Groups(self._cached_bytes)

    def _place(self, sample: int) -> _Place:
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        group = int(np.searchsorted(self._group_rows, sample, side="right")) - 1
        file = int(np.searchsorted(self._file_groups, group, side="right")) - 1
        first_group = int(self._file_groups[file])
        row_in_group, row = (sample - int(self._group_rows[at]) for at in (group, first_group))
        return _Place(self.files[file], group - first_group, row_in_group, row)

    def _check(self, file: TableFile, first: TableFile, path: Path) -> None:
        for column in (self.image_column, self.label_column):
            found = file.schema.field(column).type if column in file.schema.names else "no such column"
            if found != first.schema.field(column).type:
                raise ValueError(
                    f"{path}: column {column!r} is {found}, but {first.schema.field(column).type} in {self.files[0]}: "
                    "expected files of one form"
                )
        sizes = [file.image_bytes(group, self.image_column) for group in range(len(file.group_rows))]
        if max(sizes, default=0) > LARGEST_GROUP_BYTES:
            raise ValueError(
                f"{path}: row group {int(np.argmax(sizes))} holds {max(sizes)} bytes of images, all of which would be "
                "decoded for one: write it anew with row_group_size=100"
            )


class _Groups:
    """The groups of images read last, and the files they came from, of one process."""

    def __init__(self, cached_bytes: int) -> None:
        self.process = os.getpid()
        self._lock = threading.Lock()
        self._most_bytes, self._bytes = cached_bytes, 0
        self._groups: OrderedDict[tuple[Path, int], Any] = OrderedDict()
        self._files: OrderedDict[Path, TableFile] = OrderedDict()

    def images(self, path: Path, group: int, column: str) -> Any:
        """One group's images; the group read longest ago makes room, the one asked for always stays."""
        with self._lock:
            if (path, group) in self._groups:
                self._groups.move_to_end((path, group))
                return self._groups[path, group]
            read = self._read(path, group, column)
            self._groups[path, group] = read
            self._bytes += read.nbytes
            while self._bytes > self._most_bytes and len(self._groups) > 1:
                self._bytes -= self._groups.popitem(last=False)[1].nbytes
            return read

    def _read(self, path: Path, group: int, column: str) -> Any:
        if path not in self._files:
            self._files[path] = table_file(path)
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)
        if group >= len(self._files[path].group_rows):
            raise ValueError(f"{path} has lost its row group {group}: it changed since it was opened")
        return self._files[path].images(group, column)


def _table_paths(path: Path) -> list[Path]:
    """The file, or the tables that a folder or a pattern (`train-*.parquet`) means, in the order of their names."""
    if path.is_dir():
        files = _tables_of(path)
    elif not path.exists() and glob.has_magic(path.name):
        files = [Path(name) for name in glob.glob(str(path))]
    else:
        return [path]
    for suffix in SUFFIXES:
        if found := sorted(each for each in files if each.suffix.lower() == suffix):
            return _one_row(found, path)
    raise FileNotFoundError(f"{path} holds no {', '.join(SUFFIXES)} file: expected at least one")


def _tables_of(folder: Path) -> list[Path]:
    """The files of a folder, without the caches of Hugging Face's `map`, `filter` and `shuffle`: these hold the same
    rows again, or their numbers. Where there is a `state.json` of `save_to_disk`, it lists the files of the set."""
    try:
        saved = json.loads((folder / STATE).read_text(encoding="utf-8"))["_data_files"]
        return [folder / str(file["filename"]) for file in saved]
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or it is of another program
        return [each for each in folder.iterdir() if not each.match(".*") and not each.match(CACHES)]


def _one_row(files: list[Path], path: Path) -> list[Path]:
    """The files again; ValueError for a gap in `train-00000-of-00012` and for a second row, such as the test split."""
    numbered = [match for file in files if (match := NUMBERED.fullmatch(file.stem))]
    if len(rows := sorted({(match["before"], int(match["count"])) for match in numbered})) > 1:
        raise ValueError(
            f"{path} holds several splits, {' and '.join(before for before, _ in rows)}: name one, such as "
            f"{(path if path.is_dir() else path.parent) / rows[0][0]}-*{files[0].suffix}"
        )
    numbers = {int(match["number"]) for match in numbered}
    if rows and (missing := sorted(set(range(rows[0][1])) - numbers)):
        raise ValueError(f"{path}: of {rows[0][1]} files {len(missing)} are missing, first number {missing[0]}")
    return files
