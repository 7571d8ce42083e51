"""The lines of a list of images: how they are laid out, and where in the text each has its path and its label.

    path label            .txt   the last word is the label: paths may hold spaces
    path <tab> label      .tsv, or any suffix: a tab anywhere in the first line makes tabs the separator
    path , label          .csv   the last comma separates; no quotes
    key <tab> label ... <tab> path      im2rec's .lst; of several labels the first counts
    1 <tab> path <tab> label ...        InsightFace's .lst; landmarks that follow are passed over

A first line that calls its column of paths `path`, `file`, `filename` or `image` is a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.files.text_spans import Spans, Text, is_space, line_blocks, stripped, text_of

BLOCK_BYTES = 1 << 20  # parsed at a time: bounds the temporaries, which then stay in the processor's cache
HEADER_WORDS = frozenset({b"path", b"file", b"filename", b"image"})
NUMBER = re.compile(rb"[+-]?\d+\.?\d*")
EXPECTED = "expected a path and a label, separated by a tab, by a comma (.csv) or by a space"


class ListLines(NamedTuple):
    """The parse of one list, an entry for every line that names an image."""

    text: Text
    paths: Spans
    labels: Spans
    skipped: NDArray[np.int64]
    """The numbers, from 1, of the lines that name none: blank ones and a header."""
    has_names: bool
    """Whether the first label is no number."""

    def line(self, row: int) -> int:
        """The number of the line of an entry."""
        return line_of(row, self.skipped)


class Layout(NamedTuple):
    """Which field of a line is the path and which the label; without a separator the last word is the label."""

    separator: bytes | None
    path: int
    label: int
    splits_once: bool

    def fields(self, line: bytes) -> tuple[bytes, bytes]:
        """Path and label of one line; empty where it has too few fields. What :func:`_columns` finds for many."""
        fields = line.rsplit(self.separator, 1 if self.splits_once else -1)
        if len(fields) <= max(self.path, self.label, 1):
            return b"", b""
        return fields[self.path].strip(), fields[self.label].strip()


def list_lines(path: Path) -> ListLines:
    """The lines of the list at `path`. ValueError with the number of a line that is none, and where there is none."""
    text = text_of(path)
    first = _first_lines(text)
    if not first:
        raise ValueError(f"{path} lists no image: {EXPECTED}")
    layout = _layout(first[0], path.suffix.lower())
    has_header = layout.fields(first[0])[0].lower() in HEADER_WORDS
    begun = first[has_header:]
    if not begun:
        raise ValueError(f"{path} lists no image: {EXPECTED}")
    columns = list(_blocks(text, path, layout, has_header=has_header))
    paths, labels = (
        Spans(*(np.concatenate(part) for part in zip(*spans, strict=True)))
        for spans in ([block.paths for block in columns], [block.labels for block in columns])
    )
    skipped = np.concatenate([block.skipped for block in columns])
    return ListLines(text, paths, labels, skipped, has_names=not NUMBER.fullmatch(layout.fields(begun[0])[1]))


def line_of(row: int, skipped: NDArray[np.int64]) -> int:
    """The number, from 1, of the line that is the `row`-th, from 0, of those that were not skipped."""
    return row + 1 + int(np.searchsorted(skipped - np.arange(1, skipped.size + 1), row, side="right"))


class _Block(NamedTuple):
    paths: Spans
    labels: Spans
    skipped: NDArray[np.int64]


def _first_lines(text: Text) -> list[bytes]:
    """The first two lines that are not blank, or as many as there are."""
    found: list[bytes] = []
    for lines in line_blocks(text, 1 << 12):
        lines = stripped(text, lines)
        found += [lines.piece(text, row) for row in np.flatnonzero(lines.sizes)[: 2 - len(found)].tolist()]
        if len(found) == 2:
            break
    return found


def _blocks(text: Text, path: Path, layout: Layout, *, has_header: bool) -> Iterator[_Block]:
    number = 1
    for lines in line_blocks(text, BLOCK_BYTES):
        count = lines.starts.size
        lines = stripped(text, lines)
        is_entry = lines.sizes > 0
        if has_header and is_entry.any():
            is_entry[is_entry.argmax()] = has_header = False
        lines, numbers = lines.of(is_entry), number + np.flatnonzero(is_entry)
        paths, labels, is_good = _columns(text, lines, layout)
        if not is_good.all():
            row = int(is_good.argmin())
            raise ValueError(f"{path}, line {numbers[row]}: found {lines.piece(text, row)[:80]!r}, {EXPECTED}")
        yield _Block(paths, labels, number + np.flatnonzero(~is_entry))
        number += count


def _columns(text: Text, lines: Spans, layout: Layout) -> tuple[Spans, Spans, NDArray[np.bool_]]:
    """Path and label of each line, and which lines have both and no byte that a path cannot hold."""
    if not lines.starts.size:
        return lines, lines, np.ones(0, np.bool_)
    begin, end = int(lines.starts[0]), int(lines.stops[-1])
    characters = text[begin:end]
    is_separator = is_space(characters) if layout.separator is None else characters == layout.separator[0]
    separators = begin + np.flatnonzero(is_separator)
    first, behind = (np.searchsorted(separators, edges) for edges in lines)
    separators = np.append(separators, end)  # so that a field too many can be looked up
    if layout.splits_once:
        at = separators[behind - 1]
        paths, labels, is_good = Spans(lines.starts, at), Spans(at + 1, lines.stops), behind > first
    else:
        is_good = behind - first >= max(layout.path, layout.label, 1)
        paths, labels = (_field(lines, separators, first, behind, place) for place in (layout.path, layout.label))
    paths, labels = (
        stripped(text, Spans(spans.starts, np.where(is_good, spans.stops, spans.starts))) for spans in (paths, labels)
    )
    is_good &= (paths.sizes > 0) & (labels.sizes > 0)
    if not characters.all():
        zeros = begin + np.flatnonzero(characters == 0)
        is_good &= np.searchsorted(zeros, lines.starts) == np.searchsorted(zeros, lines.stops)
    return paths, labels, is_good


def _field(
    lines: Spans, separators: NDArray[np.int64], first: NDArray[np.int64], behind: NDArray[np.int64], place: int
) -> Spans:
    """The field at `place`, from 0, or -1 for the last; `first` and `behind` are each line's range of `separators`."""
    if place < 0:
        return Spans(separators[behind - 1] + 1, lines.stops)
    before, after = first + place - 1, np.minimum(first + place, separators.size - 1)
    starts = separators[before] + 1 if place else lines.starts
    return Spans(starts, np.where(after < behind, separators[after], lines.stops))


def _layout(line: bytes, suffix: str) -> Layout:
    """How the lines of a list are to be read, from its first."""
    fields = [field.strip() for field in line.split(b"\t")]
    if len(fields) == 1:
        return Layout(b"," if suffix == ".csv" else None, 0, 1, splits_once=True)
    if len(fields) == 2:
        return Layout(b"\t", 0, 1, splits_once=True)
    if suffix == ".lst" and not NUMBER.fullmatch(fields[1]):
        return Layout(b"\t", 1, 2, splits_once=False)
    if suffix == ".lst":
        return Layout(b"\t", -1, 1, splits_once=False)
    return Layout(b"\t", 0, 1, splits_once=False)
