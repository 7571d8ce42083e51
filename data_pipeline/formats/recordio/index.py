"""The `.idx` beside a `.rec`: lines `key offset`, parsed whole and strictly.

Readers in use take a bad line for the end of the list and train on what came before it. Here it is an error.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.files.text_spans import (
    MOST_DIGITS,
    PADDING,
    TAB,
    Spans,
    Text,
    digits,
    is_digit,
    is_space,
    line_blocks,
    stripped,
)

CHUNK_BYTES = 1 << 20  # parsed at a time: bounds the temporaries; 10 million lines are about 180 MB
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
        entries.append(_parsed(chunk, path_idx, line))
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
            yield chunk + file.readline(LONGEST_LINE_BYTES)


def _parsed(chunk: bytes, path_idx: Path, first_line: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The keys and the offsets of some whole lines."""
    text = np.frombuffer(chunk + bytes(PADDING), np.uint8)
    (lines,) = line_blocks(text, len(chunk))
    return _tabbed(chunk, text, lines) or _spaced(text, lines, path_idx, first_line)


def _tabbed(chunk: bytes, text: Text, lines: Spans) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """The entries of lines as they are mostly written, a key, one tab and an offset; None if there is any other."""
    tabs = np.flatnonzero(text == TAB)
    if tabs.size != lines.starts.size or tabs.size == 0:
        return None
    sizes = np.concatenate([tabs - lines.starts, lines.stops - tabs - 1])
    if sizes.min() < 1 or sizes.max() > MOST_DIGITS or sizes.sum() != np.count_nonzero(is_digit(text)):
        return None
    numbers = np.fromstring(chunk, np.int64, sep=" ")  # quick, but lax: hence the tests above
    return numbers[0::2], numbers[1::2]


def _spaced(text: Text, lines: Spans, path_idx: Path, first_line: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The entries of lines with any white space, or of none. ValueError for the first line that is no entry."""
    lines = stripped(text, lines)
    is_blank = lines.sizes == 0
    filled = lines.of(~is_blank)
    spaces = np.flatnonzero(is_space(text))
    first, behind = (np.searchsorted(spaces, edges) for edges in filled)
    spaces = np.append(spaces, text.size)
    last = np.maximum(behind - 1, first)  # a line without any has an empty offset
    gap_starts, gap_stops = np.minimum(spaces[first], filled.stops), np.minimum(spaces[last] + 1, filled.stops)
    keys, are_keys = digits(text, Spans(filled.starts, gap_starts))
    offsets, are_offsets = digits(text, Spans(gap_stops, filled.stops))
    is_good = are_keys & are_offsets & (gap_stops - gap_starts == behind - first)
    if not is_good.all():
        row = int(is_good.argmin())
        line = first_line + int(np.flatnonzero(~is_blank)[row])
        found = filled.piece(text, row)[:80]
        raise ValueError(f"{path_idx}, line {line}: found {found!r}, expected `key offset`: {REPAIR}")
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
