"""Damaged files of every format: each is read, or refused in words, in bounded time and memory; nothing else happens.

Damage done to true files reaches deeper than random bytes do. It is the same in every run; more of it:

    FUZZ_EXAMPLES=20000 pytest tests/data_pipeline/test_fuzz.py
"""

from __future__ import annotations

import os
import random
import signal
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from encoded import FORMATS, encoded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.checking.quarantine import QuarantineWriter, quarantined_samples
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.formats.tar.source import TarSource
from data_pipeline.formats.tar.writer import TarWriter
from data_pipeline.formats.verification_bin.source import BinSource
from data_pipeline.formats.verification_bin.writer import write_bin
from data_pipeline.images.checks import decoding_problem, image_problem, kind_of
from data_pipeline.source import Source

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "250"))
MOST_SECONDS = 20.0  # for one input of some kilobytes, which takes a thousandth of that
MOST_MEMORY_BYTES = 8 << 20
MAGIC = bytes.fromhex("0a23d7ce")
KINDS = {"empty", "wrong format", "truncated", "damaged", "damaged header", "false header", "too many pixels"}
ODD_NUMBERS = (0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**24, 2**29 - 1, 2**30 - 1, 2**31, 2**32 - 1, 2**63 - 1)
ODD_BYTES = [
    *(
        number.to_bytes(width, order)
        for number in ODD_NUMBERS
        for width in (1, 2, 4, 8)
        for order in ("little", "big")
        if number < 256**width
    ),
    *(struct.pack("<f", number) for number in (2**24 - 1, -1, float("nan"), float("inf"), float("-inf"))),
    *(MAGIC, b"\xff\xd8\xff", b"\n", b"\t", b"-1", b"9" * 30, bytes(512)),
]
Damage = tuple[str, float, bytes | int]


def drawn_damage(seed: int) -> list[Damage]:
    """A few changes, half of them near the start, where headers lie.

    One integer is drawn for all of them: to have each drawn by hypothesis costs more than to look at the input.
    """
    rng = random.Random(seed)
    changes: list[Damage] = []
    for _ in range(rng.randint(1, 4)):
        kind, place = rng.choice(["write", "write", "write", "insert", "cut", "repeat", "end"]), rng.random()
        what = rng.randint(1, 600) if kind in ("cut", "repeat", "end") else rng.choice([*ODD_BYTES, rng.randbytes(2)])
        changes.append((kind, place ** rng.choice([1, 3]), what))
    return changes


damages = st.integers(0, 2**64 - 1).map(drawn_damage)
fuzz = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)


def damaged(content: bytes, damage: list[Damage]) -> bytes:
    for kind, place, what in damage:
        at = int(place * len(content))
        if isinstance(what, bytes):
            content = content[:at] + what + content[at + len(what) * (kind == "write") :]
        elif kind == "cut":
            content = content[:at] + content[at + what :]
        elif kind == "repeat":
            content = content[: at + what] + content[at:]
        else:
            content = content[:at]
    return content


@contextmanager
def bounded() -> Iterator[None]:
    """The block ends in time, and never holds more memory than a fixed amount."""

    def hangs(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"still busy after {MOST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY_BYTES
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read_through(opened: Callable[[], Source], path: Path) -> bool:
    """Whether all that training does to a set could be done to this one; where not, an error has named the file."""
    refusal = None
    with bounded():
        try:
            source = opened()
            assert len(source) == source.labels.size > 0
            assert source.num_classes > source.labels.min() >= 0
            for sample in range(len(source)):
                assert path.name in source.name(sample)
                source.read(sample)
        except (ValueError, OSError) as error:
            refusal = str(error)
    assert refusal is None or str(path.with_suffix("")) in refusal
    return refusal is None


# Each test keeps count of the inputs that could still be read: were it all or none of them, it would test little.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def records(folder: Path) -> tuple[bytes, bytes]:
    """A `.rec` and its `.idx`, with a header, identities and a record in parts."""
    with RecordWriter(folder / "whole.rec") as writer:
        for number in range(12):
            writer.append(number // 3, b"pictures" + MAGIC * (number % 5 == 2) + bytes(range(number, 90)))
    return (folder / "whole.rec").read_bytes(), (folder / "whole.idx").read_bytes()


def test_damaged_records_are_read_or_refused(folder: Path, records: tuple[bytes, bytes]) -> None:
    path, counts = folder / "fuzz.rec", [0, 0]

    @fuzz
    @given(damages, st.booleans())
    def look(damage: list[Damage], with_index: bool) -> None:
        path.write_bytes(damaged(records[0], damage))
        if with_index:
            path.with_suffix(".idx").write_bytes(records[1])
        else:
            path.with_suffix(".idx").unlink(missing_ok=True)
        counts[read_through(lambda: RecordSource(path), path)] += 1

    look()
    assert min(counts) > EXAMPLES // 50


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (struct.pack("<I", 1 << 29 | 32), struct.pack("<I", 2**30 - 1), "the file was cut short"),
        (
            struct.pack("<f", 13.0),
            struct.pack("<f", 2.0**24 - 1),
            r"promises images 1 to 1.* missing keys \[13, 14, 15",
        ),
        (struct.pack("<f", 13.0), struct.pack("<f", float("-inf")), "promises images 1 to -inf - 1"),
    ],
    ids=["a part's length", "the count", "the count, infinite"],
)
def test_a_number_that_lies_takes_no_memory(
    folder: Path, records: tuple[bytes, bytes], old: bytes, new: bytes, said: str
) -> None:
    path = folder / "fuzz.rec"
    assert records[0].count(old) >= 1
    path.write_bytes(records[0].replace(old, new))
    path.with_suffix(".idx").write_bytes(records[1])
    with bounded(), pytest.raises(ValueError, match=said):
        RecordSource(path)


def test_a_damaged_index_is_read_or_refused(folder: Path, records: tuple[bytes, bytes]) -> None:
    path, counts = folder / "fuzz.rec", [0, 0]
    path.write_bytes(records[0])

    @fuzz
    @given(damages)
    def look(damage: list[Damage]) -> None:
        path.with_suffix(".idx").write_bytes(damaged(records[1], damage))
        counts[read_through(lambda: RecordSource(path), path)] += 1

    look()
    assert min(counts) > EXAMPLES // 100


def test_damaged_shards_are_read_or_refused(folder: Path) -> None:
    with TarWriter(folder / "shards") as writer:
        for number in range(5):
            writer.append(number // 2, b"\xff\xd8\xff" + bytes(100 * number))
    whole = writer.shards[0].read_bytes()
    path, counts = folder / "tars" / "fuzz.tar", [0, 0]
    path.parent.mkdir()

    @fuzz
    @given(damages, st.booleans())
    def look(damage: list[Damage], with_sums: bool) -> None:
        content = damaged(whole, damage)
        path.write_bytes(with_right_sums(content) if with_sums else content)
        counts[read_through(lambda: TarSource(path), path)] += 1
        for kept in path.parent.glob("tar-index-*"):
            kept.unlink()

    look()
    assert min(counts) > EXAMPLES // 50


def with_right_sums(tar: bytes) -> bytes:
    """Headers made to look right, so that damage in them is not all found by its checksum."""
    blocks = [tar[at : at + 512] for at in range(0, len(tar), 512)]
    for place, block in enumerate(blocks):
        if block[257:262] == b"ustar" and len(block) == 512:
            total = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
            blocks[place] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)


def test_damaged_verification_sets_are_read_or_refused(folder: Path) -> None:
    write_bin(folder / "whole.bin", [b"image" * (number + 1) for number in range(20)], [True, False] * 5)
    whole, path, counts = (folder / "whole.bin").read_bytes(), folder / "fuzz.bin", [0, 0]

    @fuzz
    @given(damages)
    def look(damage: list[Damage]) -> None:
        path.write_bytes(damaged(whole, damage))
        counts[read_through(lambda: BinSource(path), path)] += 1

    look()
    assert min(counts) > EXAMPLES // 50


def test_damaged_images_have_a_problem_or_none() -> None:
    images, found = [*(content for _, content in FORMATS.values()), encoded("GIF")], set[str | None]()

    @settings(fuzz, max_examples=4 * EXAMPLES)
    @given(st.sampled_from(images), damages)
    def look(image: bytes, damage: list[Damage]) -> None:
        content = with_right_checksum(damaged(image, damage))
        with bounded():
            problem = image_problem(content, largest_pixels=2**16)
            assert problem is None or kind_of(problem) in KINDS
        if problem is None:
            problem = decoding_problem(content, largest_pixels=2**16)
            assert problem is None or kind_of(problem) in ("cannot be decoded", "half a picture")
        found.add(problem and kind_of(problem))

    look()
    assert found >= {"truncated", "damaged", "damaged header", "wrong format", "cannot be decoded", None}


def with_right_checksum(content: bytes) -> bytes:
    """The header of a PNG made to look right."""
    if content[12:16] != b"IHDR" or len(content) < 33:
        return content
    return content[:29] + struct.pack(">I", zlib.crc32(content[12:29])) + content[33:]


def test_a_damaged_quarantine_list_is_read_or_refused(folder: Path, records: tuple[bytes, bytes]) -> None:
    source, path, counts = RecordSource(folder / "whole.rec"), folder / "fuzz.tsv", [0, 0]
    with QuarantineWriter(folder / "whole.tsv", source) as writer:
        for sample in range(0, 12, 2):
            writer.append(sample, "truncated: JPEG")
    whole = (folder / "whole.tsv").read_bytes()

    @fuzz
    @given(damages)
    def look(damage: list[Damage]) -> None:
        path.write_bytes(damaged(whole, damage))
        samples, refusal = list[int](), None
        with bounded():
            try:
                samples = quarantined_samples(path, source).tolist()
            except ValueError as error:
                refusal = str(error)
        assert samples == sorted(set(samples) & set(range(12)))
        assert refusal is None or str(path) in refusal
        counts[refusal is None] += 1

    look()
    assert min(counts) > EXAMPLES // 100
