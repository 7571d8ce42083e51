"""The `.idx` beside a `.rec`: lines `key offset`, parsed whole and strictly.

Readers in use take a bad line for the end of the list and train on what came before it. Here it is an error.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 16 << 20  # parsed at a time: bounds the temporaries; 10 million lines are about 180 MB
LONGEST_LINE_BYTES = 1 << 16  # as no line is that has two numbers: a longer one is found bad in two pieces
MOST_DIGITS = 18  # of an int64
NEWLINE, ZERO = ord("\n"), ord("0")
BLANK = np.isin(np.arange(256), np.frombuffer(b"\t \r\n", np.uint8))
DIGIT = np.isin(np.arange(256), np.frombuffer(b"0123456789", np.uint8))
REPAIR = "copy the index again from where the .rec came from, or rebuild it (rec2idx)"


def index_entries(path_idx: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys, ascending and each once, and the byte offsets of their records.

    Lines may come in any key order, end in LF or CRLF, use tabs or spaces, be blank or be repeated. Anything else is a
    ValueError with the line's number, and so is a key with two offsets.
    """
    if not path_idx.is_file():
        raise FileNotFoundError(f"{path_idx} is missing; it says where each record lies: {REPAIR}")
    entries, line = [np.empty((0, 2), np.int64)], 1
    for chunk in _chunks_of_lines(path_idx):
        entries.append(_parsed(chunk, path_idx, line))
        line += chunk.count(b"\n")
    keys, offsets = np.concatenate(entries).T
    if keys.size == 0:
        raise ValueError(f"{path_idx} lists no record: {REPAIR}")
    if (np.diff(keys) > 0).all():
        return np.ascontiguousarray(keys), np.ascontiguousarray(offsets)
    order = np.lexsort((offsets, keys))
    return _without_repeats(keys[order], offsets[order], path_idx)


def _chunks_of_lines(path_idx: Path) -> Iterator[bytes]:
    # A read makes room for all that it asks for; and what has no line end may be a file of any other kind and size.
    most_bytes = min(CHUNK_BYTES, path_idx.stat().st_size)
    with path_idx.open("rb") as file:
        while chunk := file.read(most_bytes):
            yield chunk + file.readline(LONGEST_LINE_BYTES)


def _parsed(text: bytes, path_idx: Path, first_line: int) -> NDArray[np.int64]:
    """Rows (key, offset) of some whole lines."""
    characters = np.frombuffer(text, np.uint8)
    is_digit = DIGIT[characters]
    edges = np.flatnonzero(np.diff(is_digit, prepend=False, append=False))
    starts, stops = edges[::2], edges[1::2]
    lengths = stops - starts
    line_ends = np.flatnonzero(characters == NEWLINE)
    numbers_per_line = np.bincount(np.searchsorted(line_ends, starts), minlength=line_ends.size + 1)
    bad_lines = [
        np.searchsorted(line_ends, np.flatnonzero(~(is_digit | BLANK[characters]))),
        np.searchsorted(line_ends, starts[lengths > MOST_DIGITS]),
        np.flatnonzero((numbers_per_line != 0) & (numbers_per_line != 2)),
    ]
    if any(bad.size for bad in bad_lines):
        line = min(int(bad[0]) for bad in bad_lines if bad.size)
        found = text.split(b"\n", line + 1)[line][:80]
        raise ValueError(f"{path_idx}, line {first_line + line}: found {found!r}, expected `key offset`: {REPAIR}")
    values = np.zeros(starts.size, np.int64)
    for place in range(int(lengths.max(initial=0))):
        rows = np.flatnonzero(lengths > place)
        values[rows] += (characters[stops[rows] - 1 - place].astype(np.int64) - ZERO) * 10**place
    return values.reshape(-1, 2)


def _without_repeats(
    keys: NDArray[np.int64], offsets: NDArray[np.int64], path_idx: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    same_key = np.diff(keys) == 0
    conflict = np.flatnonzero(same_key & (np.diff(offsets) != 0))
    if conflict.size:
        at = int(conflict[0])
        raise ValueError(f"{path_idx}: key {keys[at]} has two offsets, {offsets[at]} and {offsets[at + 1]}: {REPAIR}")
    first = np.concatenate([[True], ~same_key])
    return keys[first], offsets[first]
