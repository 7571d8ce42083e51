"""The lines of a list of images: how they are laid out, and the path and the label in each.

    path label            .txt   the last word is the label: paths may hold spaces
    path <tab> label      .tsv, or any suffix: a tab anywhere in the first line makes tabs the separator
    path , label          .csv   the last comma separates
    key <tab> label ... <tab> path      im2rec's .lst; of several labels the first counts
    1 <tab> path <tab> label ...        InsightFace's .lst; landmarks that follow are passed over

A first line that calls a column by one of `PATH_WORDS` is a header, which says where path and label stand. Quotes
around a field, as pandas writes them, and a byte order mark are taken away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow
from numpy.typing import NDArray
from pyarrow import compute

BLOCK_BYTES = 1 << 22  # parsed at a time: bounds the temporaries
PATH_WORDS = (  # the first of them that is there counts; likewise below
    *("path", "image_path", "img_path", "file_path", "filepath", "file", "filename", "file_name", "image", "img"),
    *("image_file", "image_name", "image_id"),
)
LABEL_WORDS = (
    *("label", "labels", "class", "class_id", "cls", "target", "identity", "identity_id", "person_id", "subject_id"),
    *("person", "subject", "identity_name", "class_name", "name", "id"),
)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
NEWLINE = ord("\n")
NUMBER = re.compile(rb"[+-]?\d+\.?\d*")
EXPECTED = "expected a path and a label, separated by a tab, by a comma (.csv) or by a space"


class ListLines(NamedTuple):
    """The parse of one list, an entry for every line that names an image; texts are Arrow's `large_string`."""

    paths: pyarrow.ChunkedArray
    labels: pyarrow.ChunkedArray
    skipped: NDArray[np.int64]
    """The numbers, from 1, of the lines that name none: blank ones and a header."""
    has_names: bool
    """Whether the first label is no number."""


class Layout(NamedTuple):
    """Which field of a line is the path and which the label; without a separator the last word is the label."""

    separator: str | None
    path: int
    label: int
    splits_once: bool
    has_header: bool = False
    columns: int | None = None
    """How many a header has; every line must have as many."""

    def fields(self, line: bytes) -> tuple[bytes, bytes]:
        """Path and label of one line; empty where it has too few fields. What :func:`_columns` finds for many."""
        separator = self.separator and self.separator.encode()
        fields = line.rsplit(separator or None, 1 if self.splits_once else -1)
        if len(fields) <= max(self.path, self.label, 1):
            return b"", b""
        return _plain(fields[self.path]), _plain(fields[self.label])


def list_lines(path: Path) -> ListLines:
    """The lines of the list at `path`. ValueError with the number of a line that is none, and where there is none."""
    with _opened(path) as file:
        first = list(islice((line.strip() for line in file if line.strip()), 2))
    layout = _as_headed(_layout(first[0], path.suffix.lower()), first[0], path) if first else None
    if layout is None or not first[layout.has_header :]:
        raise ValueError(f"{path} lists no image: {EXPECTED}")
    paths, labels, skipped = zip(*_blocks(path, layout), strict=True)
    has_names = not NUMBER.fullmatch(layout.fields(first[layout.has_header])[1])
    return ListLines(
        pyarrow.chunked_array(paths), pyarrow.chunked_array(labels), np.concatenate(skipped), has_names=has_names
    )


def line_of(row: int, skipped: NDArray[np.int64]) -> int:
    """The number, from 1, of the line that is the `row`-th, from 0, of those that were not skipped."""
    return row + 1 + int(np.searchsorted(skipped - np.arange(1, skipped.size + 1), row, side="right"))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The list behind its byte order mark. ValueError for one in UTF-16."""
    with path.open("rb") as file:
        mark = file.read(len(BYTE_ORDER_MARK))
        if mark.startswith(UTF_16_MARKS):
            raise ValueError(f"{path} is text in UTF-16: save it as UTF-8")
        file.seek(len(mark) if mark == BYTE_ORDER_MARK else 0)
        yield file


def _blocks(path: Path, layout: Layout) -> Iterator[tuple[Any, Any, NDArray[np.int64]]]:
    """Paths, labels and the numbers of skipped lines, block by block."""
    number, has_header = 1, layout.has_header
    with _opened(path) as file:
        while block := file.read(BLOCK_BYTES) + file.readline():
            lines = compute.ascii_trim_whitespace(_lines(block))
            is_entry = compute.binary_length(lines).to_numpy() > 0
            if has_header and is_entry.any():
                is_entry[is_entry.argmax()] = has_header = False
            entries, numbers = lines.filter(pyarrow.array(is_entry)), number + np.flatnonzero(is_entry)
            paths, labels, is_good = _columns(entries, layout)
            if b'"' in block and layout.separator is not None:
                paths, labels = _unquoted(paths), _unquoted(labels)
            if b"\0" in block:  # which no path can hold
                is_good &= ~compute.match_substring(entries, "\0").to_numpy(zero_copy_only=False)
            if not is_good.all():
                row = int(is_good.argmin())
                found = entries[row].as_buffer().to_pybytes()[:80]
                raise ValueError(f"{path}, line {numbers[row]}: found {found!r}, {EXPECTED}")
            yield paths, labels, number + np.flatnonzero(~is_entry)
            number += is_entry.size


def _lines(block: bytes) -> pyarrow.LargeStringArray:
    """The lines of some whole lines, with their ends, as views of the block; they need not be UTF-8."""
    stops = np.flatnonzero(np.frombuffer(block, np.uint8) == NEWLINE) + 1
    rest = [] if block.endswith(b"\n") else [len(block)]
    edges = np.concatenate([[0], stops, rest]).astype(np.int64)
    return pyarrow.LargeStringArray.from_buffers(edges.size - 1, pyarrow.py_buffer(edges), pyarrow.py_buffer(block))


def _columns(lines: pyarrow.LargeStringArray, layout: Layout) -> tuple[Any, Any, NDArray[np.bool_]]:
    """Path and label of each line, and which lines have both."""
    once = {"max_splits": 1, "reverse": True} if layout.splits_once else {}
    if layout.separator is None:
        fields = compute.ascii_split_whitespace(lines, **once)
    else:
        fields = compute.split_pattern(lines, layout.separator, **once)
    edges = fields.offsets.to_numpy()
    is_good = np.diff(edges) > max(layout.path, layout.label, 1)
    if layout.columns is not None:  # a separator within quotes makes more of them
        is_good &= np.diff(edges) == layout.columns
    paths, labels = (
        compute.ascii_trim_whitespace(
            fields.values.take(pyarrow.array(np.where(is_good, (edges[:-1] if place >= 0 else edges[1:]) + place, 0)))
        )
        for place in (layout.path, layout.label)
    )
    for texts in (paths, labels):
        is_good &= compute.binary_length(texts).to_numpy() > 0
    return paths, labels, is_good


def _unquoted(texts: Any) -> Any:
    """Fields without quotes around them, in which a quote was written twice."""
    return compute.replace_substring(compute.ascii_trim(texts, '"'), '""', '"')


def _plain(field: bytes) -> bytes:
    return field.strip().strip(b'"').replace(b'""', b'"')


def _as_headed(layout: Layout, line: bytes, path: Path) -> Layout:
    """The layout that the first line names, where it is a header; else `layout`."""
    separator = layout.separator.encode() if layout.separator else None
    words = [_plain(field).decode(errors="replace").lower() for field in line.split(separator)]
    places = {word: place for place, word in reversed(list(enumerate(words)))}
    at = next((places[word] for word in PATH_WORDS if word in places), None)
    if at is None or len(words) < 2:
        return layout
    if len(words) == 2:
        return layout._replace(path=at, label=1 - at, has_header=True)
    label = next((places[word] for word in LABEL_WORDS if word in places), None)
    if label is None:
        raise ValueError(
            f"{path}, line 1: a header of the columns {', '.join(words)}: expected one of labels, called one of "
            f"{', '.join(LABEL_WORDS)}"
        )
    return Layout(layout.separator, at, label, splits_once=False, has_header=True, columns=len(words))


def _layout(line: bytes, suffix: str) -> Layout:
    """How the lines of a list are to be read, from its first."""
    fields = [field.strip() for field in line.split(b"\t")]
    if len(fields) == 1:
        return Layout("," if suffix == ".csv" else None, 0, 1, splits_once=True)
    if len(fields) == 2:
        return Layout("\t", 0, 1, splits_once=True)
    if suffix == ".lst" and not NUMBER.fullmatch(fields[1]):
        return Layout("\t", 1, 2, splits_once=False)
    if suffix == ".lst":
        return Layout("\t", -1, 1, splits_once=False)
    return Layout("\t", 0, 1, splits_once=False)
