"""Pieces of one long text, found, read as numbers and compared by array operations: no Python object per piece.

A text is an array of its bytes, with `PADDING` zeros behind it, so that eight bytes can be read from any place of it. A
span is where a piece starts and where it stops.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Text = NDArray[np.uint8]
PADDING = 8
CONTROLS = 5  # from the tab on: tab, line feed, vertical tab, form feed, carriage return
NEWLINE, SPACE, TAB, ZERO, POINT = b"\n \t0."
MOST_DIGITS = 18  # of an int64
ZEROS = np.uint64(0x3030303030303030)
ABOVE_NINE, HIGH_BITS = np.uint64(0x7676767676767676), np.uint64(0x8080808080808080)
JOINS = (
    (np.uint64(8), np.uint64(10), np.uint64(0x00FF00FF00FF00FF)),
    (np.uint64(16), np.uint64(100), np.uint64(0x0000FFFF0000FFFF)),
    (np.uint64(32), np.uint64(10000), np.uint64(0x00000000FFFFFFFF)),
)
POWERS_OF_TEN = np.uint64(10) ** np.arange(9, dtype=np.uint64)
SLOT_BITS = 18  # of a table that stays in the processor's cache
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio, odd
ROUNDS = 4  # blanks at the ends that are taken away from all spans at once; whoever has more is looked at alone
MOST_ZEROS = 64  # behind the point
SPANS_AT_A_TIME = 1 << 17  # bounds the temporaries, which then stay in the processor's cache


class Spans(NamedTuple):
    """Where pieces of a text start and where they stop, one entry each."""

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The bytes of each."""
        return self.stops - self.starts

    def of(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Spans:
        """Some of them."""
        return Spans(self.starts[rows], self.stops[rows])

    def piece(self, text: Text, row: int) -> bytes:
        """What one of them holds."""
        return text[self.starts[row] : self.stops[row]].tobytes()


def text_of(path: Path) -> Text:
    """The content of a file, padded."""
    with path.open("rb", buffering=0) as file:
        size = path.stat().st_size
        text = np.zeros(size + PADDING, np.uint8)
        view, found = text.data[:size], 0
        while found < size and (count := file.readinto(view[found:])):
            found += count
    return text[: found + PADDING]


def line_blocks(text: Text, block_bytes: int) -> Iterator[Spans]:
    """The lines of a text, without their ends, in blocks of about so many bytes."""
    start, end = 0, text.size - PADDING
    while start < end:
        stop = min(start + block_bytes, end)
        newlines = start + np.flatnonzero(text[start:stop] == NEWLINE)
        if stop == end:
            newlines = np.append(newlines, end) if not newlines.size or newlines[-1] != end - 1 else newlines
        if newlines.size:
            yield Spans(np.concatenate([[start], newlines[:-1] + 1]), newlines)
            start = int(newlines[-1]) + 1
        else:
            block_bytes *= 2  # a line longer than a block


def is_space(characters: Text) -> NDArray[np.bool_]:
    """True where a byte is what `bytes.strip` takes away: a blank, or one of the five controls from the tab on."""
    return np.asarray((characters == SPACE) | (characters - np.uint8(TAB) < CONTROLS))


def is_digit(characters: Text) -> NDArray[np.bool_]:
    """True where a byte is one of 0 to 9."""
    return np.asarray(characters - np.uint8(ZERO) < 10)


def stripped(text: Text, spans: Spans) -> Spans:
    """The spans without the white space at their ends; one of nothing else is empty."""
    starts, stops = spans
    for _ in range(ROUNDS):
        before, behind = (starts < stops) & is_space(text[starts]), (starts < stops) & is_space(text[stops - 1])
        if not (before.any() or behind.any()):
            return Spans(starts, stops)
        starts, stops = starts + before, np.maximum(stops - behind, starts + before)
    for row in np.flatnonzero(before | behind).tolist():
        piece = Spans(starts, stops).piece(text, row)
        starts[row] += len(piece) - len(piece.lstrip())
        stops[row] = starts[row] + len(piece.strip())
    return Spans(starts, stops)


def digits(text: Text, spans: Spans) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """What the spans say as numbers from 0 on, and which of them are such: 1 to 18 digits and nothing else."""
    values, are_numbers = zip(*(_digits(text, part) for part in _parts(spans)), strict=True)
    return np.concatenate(values), np.concatenate(are_numbers)


def without_zeros_behind_the_point(text: Text, spans: Spans) -> Spans:
    """`12` of `12.000`; any other span as it is."""
    parts = [_without_zeros_behind_the_point(text, part) for part in _parts(spans)]
    return Spans(*map(np.concatenate, zip(*parts, strict=True)))


def distinct(text: Text, spans: Spans) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """A number for every span, 0, 1, ..., the same for those that hold the same; and a span that holds each."""
    digests = np.concatenate([_digests(text, part) for part in _parts(spans)])
    examples = _examples(digests)
    if not _are_equal(text, spans, spans.of(examples)):  # two texts of one digest, once in 2**64 pairs of them
        first_of: dict[bytes, int] = {}
        pieces = (spans.piece(text, row) for row in range(digests.size))
        examples = np.array([first_of.setdefault(piece, row) for row, piece in enumerate(pieces)])
    is_example = np.zeros(digests.size, np.bool_)
    is_example[examples] = True
    return (np.cumsum(is_example) - 1)[examples], np.flatnonzero(is_example)


def _examples(digests: NDArray[np.uint64]) -> NDArray[np.intp]:
    """For each digest a place where it stands, the same one for equal digests: some 0.1 us each, a third of a sort.

    In each round the last of the digests that share a slot of a table wins it, and all its equals with it; the others
    go on, to other slots.
    """
    examples, rows = np.empty(digests.size, np.intp), np.arange(digests.size)
    slots, left = np.zeros(1 << SLOT_BITS, np.intp), digests
    while rows.size:
        at = (left >> np.uint64(64 - SLOT_BITS)).astype(np.intp)
        slots[at] = rows
        winners = slots[at]
        has_won = digests[winners] == digests[rows]
        examples[rows[has_won]] = winners[has_won]
        rows, left = rows[~has_won], left[~has_won] * MULTIPLIER
    return examples


def _digits(text: Text, spans: Spans) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Eight digits at a time: within a word neighbours are joined, by tens, then hundreds, then ten thousands."""
    sizes = spans.sizes
    is_number = (sizes > 0) & (sizes <= MOST_DIGITS)
    values = np.zeros(sizes.size, np.uint64)
    for rows, words, shifts in _words(text, Spans(spans.starts, spans.starts + np.where(is_number, sizes, 0))):
        word = words ^ ZEROS << shifts
        is_number[rows] &= (word + ABOVE_NINE | word) & HIGH_BITS == 0
        for bits, tens, kept in JOINS:
            word = word * tens + (word >> bits) & kept
        values[rows] = values[rows] * POWERS_OF_TEN[8 - shifts // np.uint64(8)] + word
    return values.astype(np.int64), is_number


def _without_zeros_behind_the_point(text: Text, spans: Spans) -> Spans:
    """`12` of `12.000`; any other span as it is."""
    starts, stops = spans
    begin, end = int(starts.min(initial=text.size)), int(stops.max(initial=0))
    points = begin + np.flatnonzero(text[begin:end] == POINT)
    first = np.searchsorted(points, starts)
    place = points[np.minimum(first, points.size - 1)] if points.size else stops
    has_zeros = (first < points.size) & (place < stops) & (stops - place <= MOST_ZEROS)
    for behind in range(1, int((stops - place)[has_zeros].max(initial=0))):
        rows = np.flatnonzero(has_zeros & (stops - place > behind))
        has_zeros[rows] = text[place[rows] + behind] == ZERO
    return Spans(starts, np.where(has_zeros, place, stops))


def _digests(text: Text, spans: Spans) -> NDArray[np.uint64]:
    """64 bits of each span's content."""
    digests = spans.sizes.astype(np.uint64) * MULTIPLIER
    for rows, words, _ in _words(text, spans):
        mixed = (digests[rows] ^ words) * MULTIPLIER
        digests[rows] = mixed ^ mixed >> np.uint64(32)
    return digests


def _are_equal(text: Text, spans: Spans, others: Spans) -> bool:
    """Whether each span holds what the other of its row holds."""
    if (spans.sizes != others.sizes).any():
        return False
    return all(
        np.array_equal(words, other_words)
        for part, other_part in zip(_parts(spans), _parts(others), strict=True)
        for (_, words, _), (_, other_words, _) in zip(_words(text, part), _words(text, other_part), strict=True)
    )


def _parts(spans: Spans) -> Iterator[Spans]:
    for first in range(0, max(spans.starts.size, 1), SPANS_AT_A_TIME):
        yield spans.of(slice(first, first + SPANS_AT_A_TIME))


def _words(text: Text, spans: Spans) -> Iterator[tuple[NDArray[np.intp], NDArray[np.uint64], NDArray[np.uint64]]]:
    """Eight bytes of every span that has so many, the first the lowest, then the next eight, and so on.

    With the rows of the spans and the bits by which the word of a span that ends in it was shifted up.
    """
    at_any_place = np.ndarray((text.size - PADDING + 1,), "V8", text, strides=(1,))
    sizes, everyone = spans.sizes, np.arange(spans.starts.size)
    for first in range(0, int(sizes.max(initial=0)), 8):
        rows = everyone if first < sizes.min() else np.flatnonzero(sizes > first)
        words = at_any_place[spans.starts[rows] + first].view("<u8").astype(np.uint64, copy=False)
        shifts = (64 - 8 * np.minimum(sizes[rows] - first, 8)).astype(np.uint64)
        yield rows, words << shifts, shifts
