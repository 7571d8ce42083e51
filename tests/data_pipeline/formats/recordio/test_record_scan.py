import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.formats.recordio.index import index_entries
from data_pipeline.formats.recordio.record_file import RecordFile
from data_pipeline.formats.recordio.scan import scanned_entries, write_index
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter

MAGIC = bytes.fromhex("0a23d7ce")
IMAGES = {
    "plain": [b"a", b"bb", b"ccc", b"dddd"],
    "magic inside, not aligned": [b"a" + MAGIC + b"bc", b"x" + MAGIC + struct.pack("<I", 25)],
    "magic inside, aligned: several parts": [MAGIC, b"abcd" + MAGIC * 2 + b"xyz", MAGIC * 3, b"tail"],
    "a whole record inside": [b"z" + MAGIC + struct.pack("<IIfQQ", 25, 0, 1.0, 9, 0) + b"fake" + MAGIC],
}


def written(folder: Path, labels: list[int], images: list[bytes]) -> Path:
    with RecordWriter(folder / "train.rec") as writer:
        for label, image in zip(labels, images, strict=True):
            writer.append(label, image)
    return folder / "train.rec"


def plain_records(folder: Path, *ids: int) -> Path:
    """Records of 36 bytes with labels 0, 1, ... and the ids given."""
    rec = b"".join(MAGIC + struct.pack("<IIfQQ", 25, 0, label, key, 0) + b"a\0\0\0" for label, key in enumerate(ids))
    (folder / "plain.rec").write_bytes(rec)
    return folder / "plain.rec"


def scanned(path_rec: Path) -> tuple[list[int], list[int]]:
    keys, offsets = scanned_entries(RecordFile(path_rec))
    return keys.tolist(), offsets.tolist()


def contents(source: RecordSource) -> list[tuple[int, bytes]]:
    return [(source.label(sample), source.read(sample).tobytes()) for sample in range(len(source))]


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_a_lost_index_of_the_insightface_layout_is_rebuilt_as_it_was(tmp_path: Path, images: list[bytes]) -> None:
    path = written(tmp_path, list(range(len(images))), images)
    index = path.with_suffix(".idx")
    lost, entries = contents(RecordSource(path)), index_entries(index)
    index.unlink()
    assert contents(RecordSource(path)) == lost
    assert not index.exists(), "nothing is written unasked"
    assert write_index(path) == index
    np.testing.assert_array_equal(index_entries(index), entries)
    assert contents(RecordSource(path)) == lost


def test_a_lost_index_of_the_plain_layout_is_rebuilt_in_the_order_of_the_images(tmp_path: Path) -> None:
    path = written(tmp_path, [1, 0, 1], [b"a", MAGIC, b"c"])
    path.with_suffix(".idx").unlink()
    assert contents(RecordSource(path)) == [(1, b"a"), (0, MAGIC), (1, b"c")]


def test_keys_are_the_records_ids_whatever_their_order_in_the_file(tmp_path: Path) -> None:
    path = plain_records(tmp_path, 30, 10, 20)
    assert scanned(path) == ([10, 20, 30], [36, 72, 0])
    assert RecordSource(path).labels.tolist() == [1, 2, 0]


@pytest.mark.parametrize("ids", [(0, 0, 0), (5, 6, 5)])
def test_ids_that_repeat_are_not_trusted(tmp_path: Path, ids: tuple[int, ...]) -> None:
    assert scanned(plain_records(tmp_path, *ids)) == ([0, 1, 2], [0, 36, 72])


def test_an_id_beyond_32_bits_or_split_by_the_magic_number_is_read(tmp_path: Path) -> None:
    magic = int.from_bytes(MAGIC, "little")
    head = struct.pack("<IfQQ", 0, 7.0, magic, 0).split(MAGIC)
    parts = b"".join(
        MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + bytes(-len(part) % 4)
        for kind, part in ((1, head[0]), (3, head[1] + b"image"))
    )
    path = plain_records(tmp_path, 2**40, 3)
    path.write_bytes(path.read_bytes() + parts)
    assert scanned(path) == ([3, magic, 2**40], [36, 72, 0])
    assert contents(RecordSource(path)) == [(1, b"a"), (7, b"image"), (0, b"a")]


def test_a_header_is_not_held_against_the_ids_that_stand_for_lost_keys(tmp_path: Path) -> None:
    """A shuffled copy may number its records anew and keep the header, whose count is then of other keys."""
    header = MAGIC + struct.pack("<IIfQQ2f", 32, 2, 0.0, 0, 1, 4.0, 4.0)
    path = plain_records(tmp_path, 7, 8, 9)
    path.write_bytes(path.read_bytes() + header)
    assert RecordSource(path).labels.tolist() == [0, 1, 2]


def with_bytes(at: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda rec: rec[:at] + new + rec[at + len(new) :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            with_bytes(36, b"\0\0\0\0"),
            r"\(108 bytes\): at byte 36, behind 1 whole records, expected a record, found magic",
        ),
        (
            with_bytes(40, struct.pack("<I", 24)),
            r"at byte 68, behind 2 whole records, expected a record, found magic 0x61",
        ),
        (
            with_bytes(40, struct.pack("<I", 500)),
            r"at byte 36, .* found one that says it ends at byte 544, past the end",
        ),
        (with_bytes(40, struct.pack("<I", 2 << 29 | 25)), r"at byte 36, .* expected a record, found .* a middle part"),
        (with_bytes(40, struct.pack("<I", 7 << 29 | 25)), r"at byte 36, .* expected a record, found .* kind 7"),
        (with_bytes(40, struct.pack("<I", 1 << 29 | 25)), r"byte 72, behind 1 whole records, expected the next part"),
        (
            with_bytes(76, struct.pack("<I", 1 << 29 | 25)),
            r"byte 108, behind 2 .* the next part .* the end of the file",
        ),
        (lambda rec: rec[:-8], r"at byte 72, behind 2 whole records, .* says it ends at byte 105, past the end"),
        (lambda rec: rec[:76], r"at byte 72, behind 2 whole records, expected a record, found the end of the file"),
        (lambda rec: rec + bytes(512), r"at byte 108, behind 3 whole records, expected a record, found magic 0x0"),
        (lambda rec: rec + MAGIC + bytes(4), r"key 3 at byte 108: it is too short to hold an image's head"),
        (lambda rec: MAGIC + bytes(4) + rec, r"its labels do not fit its length"),
        (lambda rec: b"", r"plain\.rec is empty"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = plain_records(tmp_path, 0, 1, 2)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        RecordSource(path)


def test_an_index_is_written_whole_or_not_at_all_and_over_none(tmp_path: Path) -> None:
    path = plain_records(tmp_path, 0, 1)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="copy it again"):
        write_index(path)
    assert list(tmp_path.iterdir()) == [path]
    path.with_suffix(".idx").write_text("precious")
    with pytest.raises(FileExistsError, match="never overwritten"):
        write_index(path)
    assert path.with_suffix(".idx").read_text() == "precious"
