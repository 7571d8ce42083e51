"""A text file that lists images, one a line, with their labels.

    path label            .txt   the last word is the label: paths may hold spaces
    path <tab> label      .tsv, or any suffix: a tab anywhere in the first line makes tabs the separator
    path , label          .csv   the last comma separates; no quotes
    key <tab> label ... <tab> path      im2rec's .lst; of several labels the first counts
    1 <tab> path <tab> label ...        InsightFace's .lst; landmarks that follow are passed over

A first line that calls its column of paths `path`, `file`, `filename` or `image` is a header. Paths are relative to the
list's folder, or absolute. If the first label is a number all must be; otherwise labels are names and become 0, 1, ...
in the order of the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.image_files import FileSource
from data_pipeline.packed_texts import PackedTexts

CHUNK_BYTES = 4 << 20  # parsed at a time: bounds the Python objects that exist at once at some tens of megabytes
MOST_DIGITS = 18  # of an int64
FILES_TRIED = 16  # when a list is opened: finds a wrong folder at once; a stat of each would take as long as an epoch
HEADER_WORDS = frozenset({b"path", b"file", b"filename", b"image"})
NUMBER = re.compile(rb"[+-]?\d+\.?\d*")
EXPECTED = "expected a path and a label, separated by a tab, by a comma (.csv) or by a space"


class ListSource(FileSource):
    """The images of a list in the order of its lines; the forms it may have are this module's docstring.

    Opening reads the list once, 1.2 us a line (2 us where labels are names), and tries 16 of the files. ValueError with
    the line's number for a line that is none and a label that is no number among numbers; FileNotFoundError with it for
    a file that is missing, when it is tried or read. A path may come twice. Labels need not be contiguous.
    """

    def __init__(self, path: Path) -> None:
        self.list_path = Path(path)
        if not self.list_path.is_file():
            raise FileNotFoundError(f"{path} is missing; expected a list of images: {EXPECTED}")
        lines = _Lines(self.list_path)
        super().__init__(self.list_path.parent, PackedTexts(lines), *lines.classes())
        self._skipped = np.array(lines.skipped, np.int64) - np.arange(1, len(lines.skipped) + 1)
        for sample in np.unique(np.linspace(0, len(self) - 1, FILES_TRIED).astype(np.int64)):
            if not Path(self.path(int(sample))).is_file():
                raise FileNotFoundError(f"{self.name(int(sample))} is missing: paths are relative to the list's folder")

    def line(self, sample: int) -> int:
        """The number of the line, from 1, that names an image."""
        return sample + 1 + int(np.searchsorted(self._skipped, sample, side="right"))

    def name(self, sample: int) -> str:
        """The list, the line, and the path in it."""
        return f"{self.list_path}, line {self.line(sample)}: {self.path(sample)}"


class _Layout(NamedTuple):
    """Which field of a line is the path and which the label; without a separator the last word is the label."""

    separator: bytes | None
    path: int
    label: int
    splits_once: bool

    def columns(self, lines: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Paths and labels of some lines; IndexError if one has too few fields."""
        paths, labels, most = [], [], 1 if self.splits_once else -1
        for line in lines:  # one list at a time: the garbage collector would go through a million that live at once
            fields = line.rsplit(self.separator, most)
            paths.append(fields[self.path].strip())
            labels.append(fields[self.label].strip())
        return paths, labels


class _Lines:
    """The parse of one list: iterating gives the paths, block by block; the labels are there when it is through."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skipped: list[int] = []  # numbers of the lines that name no image
        self._numbers: list[NDArray[np.int64]] = []
        self._names: list[bytes] = []  # the name of each row of equal labels, and how long the row is
        self._lengths: list[int] = []
        self._layout: _Layout | None = None
        self._has_names = False

    def __iter__(self) -> Iterator[list[bytes]]:
        first = 1
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                lines = [line.strip() for line in (chunk + file.readline()).removesuffix(b"\n").split(b"\n")]
                numbers: Sequence[int] = range(first, first + len(lines))
                first += len(lines)
                if self._layout is None and any(lines):
                    self._layout = self._begin(lines, numbers)
                if not all(lines):
                    self.skipped += [number for number, line in zip(numbers, lines, strict=True) if not line]
                    numbers = [number for number, line in zip(numbers, lines, strict=True) if line]
                    lines = [line for line in lines if line]
                if lines:
                    yield self._parsed(lines, numbers)
        if not self._numbers and not self._names:
            raise ValueError(f"{self.path} lists no image: {EXPECTED}")

    def classes(self) -> tuple[NDArray[np.int64], PackedTexts | None]:
        """The label of every image, and the names of the labels where they have names."""
        if not self._has_names:
            return np.concatenate(self._numbers), None
        names = sorted(set(self._names))
        label_of = {name: label for label, name in enumerate(names)}
        rows = np.fromiter((label_of[name] for name in self._names), np.int64, len(self._names))
        return np.repeat(rows, self._lengths), PackedTexts([names])

    def _begin(self, lines: list[bytes], numbers: Sequence[int]) -> _Layout:
        """The layout, told by the first line that is not blank; a header is made blank."""
        at, *others = [at for at, line in enumerate(lines) if line]
        layout = _layout(lines[at], self.path.suffix.lower())
        (path,), (label,) = self._columns(layout, [lines[at]], [numbers[at]])
        if path.lower() in HEADER_WORDS:
            lines[at] = b""
            for other in others[:1]:
                _, (label,) = self._columns(layout, [lines[other]], [numbers[other]])
        self._has_names = not NUMBER.fullmatch(label)
        return layout

    def _columns(self, layout: _Layout, lines: list[bytes], numbers: Sequence[int]) -> tuple[list[bytes], list[bytes]]:
        """The paths and the labels of lines, of which none is blank."""
        try:
            paths, labels = layout.columns(lines)
            if all(paths) and all(labels) and b"\0" not in b"".join(paths):
                return paths, labels
        except IndexError:
            paths = labels = []
        if len(lines) > 1:
            for line, number in zip(lines, numbers, strict=True):
                self._columns(layout, [line], [number])
        raise ValueError(f"{self.path}, line {numbers[0]}: found {lines[0][:80]!r}, {EXPECTED}")

    def _parsed(self, lines: list[bytes], numbers: Sequence[int]) -> list[bytes]:
        assert self._layout is not None
        paths, labels = self._columns(self._layout, lines, numbers)
        if self._has_names:
            for name, row in groupby(labels):
                self._names.append(name)
                self._lengths.append(sum(1 for _ in row))
            return paths
        if not all(map(bytes.isdigit, labels)):
            labels = [_digits(label) for label in labels]
        if not all(map(bytes.isdigit, labels)) or max(map(len, labels)) > MOST_DIGITS:
            at = next(at for at, label in enumerate(labels) if not label.isdigit() or len(label) > MOST_DIGITS)
            raise ValueError(
                f"{self.path}, line {numbers[at]}: the label {labels[at][:80]!r} is no number from 0 on, as the first "
                "line's is: mend it, or make every label a name"
            )
        self._numbers.append(np.fromiter(map(int, labels), np.int64, len(labels)))
        return paths


def _layout(line: bytes, suffix: str) -> _Layout:
    """How the lines of a list are to be read, from its first."""
    fields = [field.strip() for field in line.split(b"\t")]
    if len(fields) == 1:
        return _Layout(b"," if suffix == ".csv" else None, 0, 1, splits_once=True)
    if len(fields) == 2:
        return _Layout(b"\t", 0, 1, splits_once=True)
    if suffix == ".lst" and not NUMBER.fullmatch(fields[1]):
        return _Layout(b"\t", 1, 2, splits_once=False)
    if suffix == ".lst":
        return _Layout(b"\t", -1, 1, splits_once=False)
    return _Layout(b"\t", 0, 1, splits_once=False)


def _digits(label: bytes) -> bytes:
    """`12` for im2rec's `12.000000`; anything else as it is."""
    whole, point, rest = label.partition(b".")
    return whole if point and not rest.strip(b"0") else label
