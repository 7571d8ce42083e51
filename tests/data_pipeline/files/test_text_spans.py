"""Array operations on pieces of a text, against what Python's own methods of bytes say of each."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.files import text_spans
from data_pipeline.files.text_spans import (
    PADDING,
    Spans,
    digits,
    distinct,
    line_blocks,
    stripped,
    text_of,
    without_zeros_behind_the_point,
)

WORDS = [b"", b"0", b"7", b"42", b"1234567", b"12345678", b"123456789", b"9" * 16, b"9" * 17, b"9" * 18, b"9" * 19]
ODD = [b"-1", b"1a", b"1:", b"/1", b"1 2", b"\xb1", b"1\x00", b"1234567x", b"12345678x", b"\x80" * 9, b"1.5", b"1.0"]


def packed(pieces: list[bytes]) -> tuple[text_spans.Text, Spans]:
    """The pieces with bytes between them that belong to none."""
    ends = np.cumsum([len(piece) + 1 for piece in pieces])
    text = np.frombuffer(b"9".join(pieces) + b"9" + bytes(PADDING), np.uint8)
    return text, Spans(ends - 1 - [len(piece) for piece in pieces], ends - 1)


@pytest.fixture(params=[1, 3, 1 << 17])
def _spans_at_a_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_spans, "SPANS_AT_A_TIME", request.param)


@pytest.mark.usefixtures("_spans_at_a_time")
def test_digits_are_what_int_makes_of_them() -> None:
    draw = random.Random(0)
    pieces = [*WORDS, *ODD, *(str(draw.randrange(10 ** draw.randrange(1, 20))).encode() for _ in range(500))]
    values, are_numbers = digits(*packed(pieces))
    assert are_numbers.tolist() == [piece.isdigit() and len(piece) <= 18 for piece in pieces]
    assert values[are_numbers].tolist() == [
        int(p) for p, is_number in zip(pieces, are_numbers, strict=True) if is_number
    ]


@pytest.mark.usefixtures("_spans_at_a_time")
def test_zeros_behind_a_point_are_left_out_and_nothing_else() -> None:
    pieces = [b"3.000000", b"3.", b"3", b".0", b"3.01", b"3.10", b"3.0.0", b"", b".", b"12." + b"0" * 30, b"3.00x"]
    text, spans = packed(pieces)
    found = without_zeros_behind_the_point(text, spans)
    expected = [b"3", b"3", b"3", b"", b"3.01", b"3.10", b"3.0.0", b"", b"", b"12", b"3.00x"]
    assert [found.piece(text, row) for row in range(len(pieces))] == expected


@pytest.mark.usefixtures("_spans_at_a_time")
def test_equal_pieces_share_a_number_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(1)
    alphabet = [bytes(draw.choices(b"ab\x00", k=draw.randrange(20))) for _ in range(60)]
    pieces = draw.choices(alphabet, k=400)
    for bits in (1, 18):
        monkeypatch.setattr(text_spans, "SLOT_BITS", bits)
        check_distinct(pieces)
    monkeypatch.setattr(text_spans, "_digests", lambda text, spans: spans.sizes.astype(np.uint64))
    check_distinct(pieces)  # digests that do not tell pieces apart cost time, no more


def check_distinct(pieces: list[bytes]) -> None:
    codes, examples = distinct(*packed(pieces))
    assert codes.max() + 1 == examples.size == len(set(pieces))
    assert [pieces[examples[code]] for code in codes] == pieces


def test_white_space_is_what_strip_takes_away() -> None:
    draw = random.Random(2)
    pieces = [bytes(draw.choices(b" \t\r\x0b\x0c\x1c\x00ab", k=draw.randrange(16))) for _ in range(500)]
    pieces += [b" " * 50 + b"a" + b"\t" * 50, b" " * 50]
    text, spans = packed(pieces)
    found = stripped(text, spans)
    assert [found.piece(text, row) for row in range(len(pieces))] == [piece.strip() for piece in pieces]


@pytest.mark.parametrize("content", [b"", b"a", b"a\n", b"\n", b"\n\na", b"ab\nc\n\nlonger than a block\nd"])
@pytest.mark.parametrize("block_bytes", [1, 3, 100])
def test_blocks_of_lines_are_the_lines(tmp_path: Path, content: bytes, block_bytes: int) -> None:
    (tmp_path / "text").write_bytes(content)
    text = text_of(tmp_path / "text")
    lines = [block.piece(text, row) for block in line_blocks(text, block_bytes) for row in range(block.starts.size)]
    assert lines == content.removesuffix(b"\n").split(b"\n") if content else lines == []
