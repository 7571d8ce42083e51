"""The `.idx` beside a `.rec`: lines `key offset`, parsed whole and strictly.

Readers in use take a bad line for the end of the list and train on what came before it. Here it is an error.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 1 << 20  # parsed at a time: bounds the temporaries; 10 million lines are about 180 MB
MOST_DIGITS = 18  # of an int64
NEWLINE, SPACE, TAB, ZERO = b"\n \t0"
LONGEST_LINE_BYTES = 1 << 16  # as no line is that has two numbers: a longer one is found bad in two pieces
REPAIR = "copy the index again from where the .rec came from, or rebuild it (rec2idx)"


def index_entries(path_idx: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys, ascending and each once, and the byte offsets of their records.

    Lines may come in any key order, end in LF or CRLF, use tabs or spaces, be blank or be repeated. Anything else is a
    ValueError with the line's number, and so is a key with two offsets.
    """
    if not path_idx.is_file():
        raise FileNotFoundError(f"{path_idx} is missing; it says where each record lies: {REPAIR}")
    none, line = np.empty(0, np.int64), 1
    entries = [(none, none)]
    for chunk in _chunks_of_lines(path_idx):
        entries.append(_plain(chunk) or _spaced(chunk, path_idx, line))
        line += chunk.count(b"\n")
    keys, offsets = map(np.concatenate, zip(*entries, strict=True))
    if keys.size == 0:
        raise ValueError(f"{path_idx} lists no record: {REPAIR}")
    order = np.argsort(keys, kind="stable")  # quick, as keys mostly ascend but for a header's at the end
    keys, offsets = keys[order], offsets[order]
    return (keys, offsets) if (keys[1:] > keys[:-1]).all() else _without_repeats(keys, offsets, path_idx)


def _chunks_of_lines(path_idx: Path) -> Iterator[bytes]:
    # A read makes room for all that it asks for; and what has no line end may be a file of any other kind and size.
    most_bytes = min(CHUNK_BYTES, path_idx.stat().st_size)
    with path_idx.open("rb") as file:
        while chunk := file.read(most_bytes):
            lines = (chunk + file.readline(LONGEST_LINE_BYTES)).replace(b"\r\n", b"\n")
            yield lines if lines.endswith(b"\n") else lines + b"\n"


def _plain(lines: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """The entries of lines as they are mostly written: a key, one tab or space, an offset. None if one is otherwise."""
    text = np.frombuffer(lines, np.uint8)
    ends = np.flatnonzero(text - np.uint8(ZERO) > 9)  # of numbers, were all lines such
    sizes = np.diff(ends, prepend=-1) - 1
    separators, newlines = text[ends[0::2]], text[ends[1::2]]
    has_two_each = ((separators == TAB) | (separators == SPACE)).all() and (newlines == NEWLINE).all()
    if not has_two_each or ends.size % 2 or sizes.min() < 1 or sizes.max() > MOST_DIGITS:
        return None
    numbers = np.fromstring(lines, np.int64, sep=" ")  # quick, but lax: hence the tests above
    return numbers[0::2], numbers[1::2]


def _spaced(lines: bytes, path_idx: Path, first_line: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The entries of lines with any white space, or of none. ValueError for the first line that is no entry."""
    entries: list[tuple[int, int]] = []
    for number, line in enumerate(lines.split(b"\n"), first_line):
        fields = line.split()
        if len(fields) == 2 and all(field.isdigit() and len(field) <= MOST_DIGITS for field in fields):
            entries.append((int(fields[0]), int(fields[1])))
        elif fields:
            found = line.strip()[:80]
            raise ValueError(f"{path_idx}, line {number}: found {found!r}, expected `key offset`: {REPAIR}")
    keys, offsets = np.array(entries, np.int64).reshape(-1, 2).T
    return keys, offsets


def _without_repeats(
    keys: NDArray[np.int64], offsets: NDArray[np.int64], path_idx: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.lexsort((offsets, keys))
    keys, offsets = keys[order], offsets[order]
    same_key = np.diff(keys) == 0
    conflict = np.flatnonzero(same_key & (np.diff(offsets) != 0))
    if conflict.size:
        at = int(conflict[0])
        raise ValueError(f"{path_idx}: key {keys[at]} has two offsets, {offsets[at]} and {offsets[at + 1]}: {REPAIR}")
    first = np.concatenate([[True], ~same_key])
    return keys[first], offsets[first]
