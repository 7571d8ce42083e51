import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.formats.recordio.index import index_entries
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter

MAGIC = bytes.fromhex("0a23d7ce")
PAYLOADS_WITH_MAGICS = {
    "alone": MAGIC,
    "first": MAGIC + b"tail",
    "last": b"head" + MAGIC,
    "twice in a row": b"abcd" + MAGIC + MAGIC + b"xyz",
    "three in a row, nothing else": MAGIC * 3,
    "not aligned": b"a" + MAGIC + b"bcd",
    "not aligned, then aligned": b"a" + MAGIC + b"bcd" + MAGIC + b"e",
    "overlapping candidates": b"\x0a\x23" + MAGIC + b"\xd7\xce" + MAGIC,
}


def record(payload: bytes, kind: int = 0) -> bytes:
    return MAGIC + struct.pack("<I", kind << 29 | len(payload)) + payload + bytes(-len(payload) % 4)


def image_payload(label: float, image: bytes) -> bytes:
    return struct.pack("<IfQQ", 0, label, 0, 0) + image


def array_payload(labels: list[float], image: bytes = b"") -> bytes:
    return struct.pack("<IfQQ", len(labels), 0.0, 0, 0) + struct.pack(f"<{len(labels)}f", *labels) + image


def written_by_hand(folder: Path, payloads: dict[int, bytes]) -> Path:
    rec, lines = b"", []
    for key, payload in payloads.items():
        lines.append(f"{key}\t{len(rec)}\n")
        rec += record(payload)
    (folder / "hand.rec").write_bytes(rec)
    (folder / "hand.idx").write_text("".join(lines))
    return folder / "hand.rec"


def written(folder: Path, labels: list[int], images: list[bytes]) -> Path:
    with RecordWriter(folder / "train.rec") as writer:
        for label, image in zip(labels, images, strict=True):
            writer.append(label, image)
    return folder / "train.rec"


def kinds_of_first_record(rec: bytes) -> list[int]:
    kinds: list[int] = []
    at = 0
    while not kinds or kinds[-1] in (1, 2):
        magic, word = struct.unpack_from("<4sI", rec, at)
        assert magic == MAGIC
        kinds.append(word >> 29)
        at += 8 + (word % 2**29 + 3) // 4 * 4
    return kinds


def contents(source: RecordSource) -> list[tuple[int, bytes]]:
    return [(source.label(sample), source.read(sample).tobytes()) for sample in range(len(source))]


@pytest.mark.parametrize("labels", [[0, 0, 1, 3, 3, 3], [0, 1, 0, 3, 1, 3]], ids=["grouped", "ungrouped"])
def test_what_is_written_is_read_back(tmp_path: Path, labels: list[int]) -> None:
    images = [os.urandom(size) for size in (1, 2, 3, 4, 5, 1000)]
    source = RecordSource(written(tmp_path, labels, images))
    assert contents(source) == list(zip(labels, images, strict=True))
    assert source.labels.dtype == np.int64
    assert (len(source), source.num_classes, source.num_identities) == (6, 4, 3)


def test_grouped_labels_give_the_insightface_layout(tmp_path: Path) -> None:
    path = written(tmp_path, [7, 7, 5], [b"aaaa", b"bbbbb", b"c"])
    keys, offsets = index_entries(path.with_suffix(".idx"))
    assert keys.tolist() == [0, 1, 2, 3, 4, 5]
    rec = path.read_bytes()
    heads = [struct.unpack_from("<II", rec, offset + 8)[0] for offset in offsets]
    assert heads == [2, 0, 0, 0, 2, 2]
    pairs = [struct.unpack_from("<2f", rec, offset + 32) for offset in offsets[[0, 4, 5]]]
    assert pairs == [(4, 6), (1, 3), (3, 4)]  # images 1..3, identities 4..5; the images of each
    assert offsets[0] == offsets.max()


def test_ungrouped_labels_give_a_plain_file_keyed_from_zero(tmp_path: Path) -> None:
    path = written(tmp_path, [1, 0, 1], [b"a", b"b", b"c"])
    assert path.with_suffix(".idx").read_text() == "0\t0\n1\t36\n2\t72\n"
    assert path.stat().st_size == 3 * 36


@pytest.mark.parametrize("image", PAYLOADS_WITH_MAGICS.values(), ids=PAYLOADS_WITH_MAGICS)
def test_an_image_that_holds_the_magic_number_survives(tmp_path: Path, image: bytes) -> None:
    path = written(tmp_path, [3, 4], [image, b"next"])
    assert contents(RecordSource(path)) == [(3, image), (4, b"next")]
    aligned = sum(image[at : at + 4] == MAGIC for at in range(0, len(image) - 3, 4))
    assert kinds_of_first_record(path.read_bytes()) == ([1] + [2] * (aligned - 1) + [3] if aligned else [0])


def test_a_magic_number_within_the_head_of_the_payload_is_put_back(tmp_path: Path) -> None:
    identity = int.from_bytes(MAGIC, "little")
    payload = struct.pack("<IfQQ", 0, 9.0, identity, 0) + b"image"
    parts = payload.split(MAGIC)
    (tmp_path / "parts.rec").write_bytes(record(parts[0], kind=1) + record(parts[1], kind=3))
    (tmp_path / "parts.idx").write_text("0\t0\n")
    assert contents(RecordSource(tmp_path / "parts.rec")) == [(9, b"image")]


def test_the_class_is_the_first_of_several_labels(tmp_path: Path) -> None:
    path = written_by_hand(
        tmp_path, {0: array_payload([5, 1], b"ab"), 1: array_payload([6], b"c"), 2: image_payload(7, b"d")}
    )
    assert contents(RecordSource(path)) == [(5, b"ab"), (6, b"c"), (7, b"d")]


def test_insightface_header_and_identities_are_not_images(tmp_path: Path) -> None:
    path = written_by_hand(
        tmp_path,
        {
            1: image_payload(0, b"a"),
            2: array_payload([1, 0], b"b"),
            3: array_payload([1, 2]),
            4: array_payload([2, 3]),
            0: array_payload([3, 5]),
        },
    )
    source = RecordSource(path)
    assert contents(source) == [(0, b"a"), (1, b"b")]
    assert source.name(1) == f"{path} key 2"


def test_a_header_count_that_float32_cannot_hold_is_not_trusted(tmp_path: Path) -> None:
    payloads = {1: image_payload(0, b"a"), 2: array_payload([1, 2]), 0: array_payload([42474558.0, 42474560.0])}
    assert contents(RecordSource(written_by_hand(tmp_path, payloads))) == [(0, b"a")]


def test_the_order_is_the_keys_whatever_the_order_of_lines_or_records(tmp_path: Path) -> None:
    path = written_by_hand(
        tmp_path, {20: image_payload(2, b"c"), 3: image_payload(0, b"a"), 10: image_payload(1, b"b")}
    )
    assert contents(RecordSource(path)) == [(0, b"a"), (1, b"b"), (2, b"c")]


@pytest.mark.parametrize(
    "text",
    [
        "0\t0\n1\t36\n",
        "0 0\n1 36\n",
        "0\t0\r\n1\t36\r\n",
        "1\t36\n0\t0",
        "\n0\t0\n\n 1  36 \n\n",
        "0\t0\n1\t36\n0\t0\n",
    ],
    ids=["tabs", "spaces", "crlf", "no last newline", "blank lines", "a line twice"],
)
def test_index_lines_may_look_otherwise(tmp_path: Path, text: str) -> None:
    path = written_by_hand(tmp_path, {0: image_payload(0, b"a"), 1: image_payload(1, b"b")})
    path.with_suffix(".idx").write_bytes(text.encode())
    assert contents(RecordSource(path)) == [(0, b"a"), (1, b"b")]


def test_an_index_read_in_chunks_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, list(range(50)), [b"x" * (size + 1) for size in range(50)])
    whole = index_entries(path.with_suffix(".idx"))
    for module, name in (("index", "CHUNK_BYTES"), ("record_file", "HEADS_AT_A_TIME")):
        monkeypatch.setattr(f"data_pipeline.formats.recordio.{module}.{name}", 7)
    np.testing.assert_array_equal(index_entries(path.with_suffix(".idx")), whole)
    assert RecordSource(path).labels.tolist() == list(range(50))
    path.with_suffix(".idx").write_text("1 0\n" * 9 + "2 b\n")
    with pytest.raises(ValueError, match=r"line 10: found b'2 b'"):
        index_entries(path.with_suffix(".idx"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\t0\nnonsense\n2\t72\n", r"line 2: found b'nonsense', expected `key offset`"),
        ("0\t0\n1\n2\t72\n", r"line 2: found b'1'"),
        ("0\t0\n1\t36\t5\n", r"line 2: found b'1\\t36\\t5'"),
        ("0\t-36\n", r"line 1"),
        ("0\t0\n+1\t36\n", r"line 2: found b'\+1\\t36'"),
        ("0\t0\n1\t0x24\n", r"line 2: found b'1\\t0x24'"),
        ("0\t0\n\t1\n", r"line 2: found b'1'"),
        ("0\t0\n\n1\t1.5\n", r"line 3"),
        ("0\t" + "9" * 30 + "\n", r"line 1"),
        ("\n\n", r"lists no record"),
        ("", r"lists no record"),
        ("0\t0\n0\t36\n", r"key 0 has two offsets, 0 and 36"),
        ("0\t0\n1\t35\n", r"key 1 at byte 35: records start at multiples of 4"),
        ("0\t0\n1\t40\n", r"key 1 at byte 40: it does not start with the magic number 0xced7230a"),
        ("0\t0\n1\t100000\n", r"\(108 bytes\), key 1 at byte 100000: no record fits before its end. 1 of 2 records"),
    ],
)
def test_a_bad_index_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = written_by_hand(tmp_path, {key: image_payload(key, b"a") for key in range(3)})
    path.with_suffix(".idx").write_text(text)
    with pytest.raises(ValueError, match=message):
        RecordSource(path)


def with_bytes(at: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda rec: rec[:at] + new + rec[at + len(new) :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_bytes(36, b"\0\0\0\0"), r"key 1 at byte 36: it does not start with the magic number"),
        (with_bytes(40, struct.pack("<I", 2**28)), r"key 1 at byte 36: its length reaches past the end"),
        (with_bytes(44, struct.pack("<I", 2**31)), r"key 1 at byte 36: its labels do not fit its length"),
        (with_bytes(40, struct.pack("<I", 2 << 29 | 25)), r"key 1 at byte 36: it is the middle of a record"),
        (with_bytes(40, struct.pack("<I", 1 << 29 | 25)), r"record at byte 36 is damaged: at byte 72 expected part 1"),
        (with_bytes(48, struct.pack("<f", -1)), r"key 1 at byte 36: its label is no class"),
        (with_bytes(48, struct.pack("<f", 0.5)), r"key 1 at byte 36: its label is no class"),
        (with_bytes(48, struct.pack("<f", float("nan"))), r"key 1 at byte 36: its label is no class"),
        (with_bytes(48, struct.pack("<f", 2**24 + 2)), r"key 1 at byte 36: its label is no class"),
        (lambda rec: rec[:-8], r"key 2 at byte 72: no record fits"),
        (lambda rec: rec[:20], r"key 0 at byte 0: no record fits before its end. 3 of 3"),
        (lambda rec: b"", r"\(0 bytes\), key 0 at byte 0: no record fits"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = written_by_hand(tmp_path, {key: image_payload(key, b"a") for key in range(3)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        RecordSource(path)


def test_an_index_that_lost_lines_contradicts_the_header(tmp_path: Path) -> None:
    path = written(tmp_path, [0, 0, 1, 1], [b"a", b"b", b"c", b"d"])
    index = path.with_suffix(".idx")
    index.write_text("".join(line for line in index.read_text().splitlines(True) if not line.startswith("3\t")))
    with pytest.raises(ValueError, match=r"promises images 1 to 5 - 1, the index lists 3; missing keys \[3\]"):
        RecordSource(path)
    index.write_text("".join(line for line in index.read_text().splitlines(True) if not line.startswith("0\t")))
    listed = RecordSource(path)
    assert listed.labels.tolist() == [0, 0, 1]
    assert listed.left_out == (f"{path} has images that its index does not list, the first at byte 72",)
    index.unlink()
    assert RecordSource(path).left_out == ()


@pytest.mark.parametrize("long_image", [b"last", MAGIC * 3])
def test_an_index_that_ends_before_its_file_is_refused(tmp_path: Path, long_image: bytes) -> None:
    path = written(tmp_path, [0, 1, 0, 1], [b"a", b"b", long_image, b"d"])
    assert RecordSource(path).left_out == ()
    index = path.with_suffix(".idx")
    lines = index.read_text().splitlines(True)
    for kept in (1, 2, 3):
        index.write_text("".join(lines[:kept]))
        with pytest.raises(ValueError, match=rf"its index lists {kept} records, and not the image at byte "):
            RecordSource(path)
    index.write_text("".join(lines[1:]))
    assert RecordSource(path).left_out == (f"{path} has images that its index does not list, the first at byte 0",)


def test_labels_that_are_long_arrays_are_refused(tmp_path: Path) -> None:
    boxes = {key: array_payload([4, 5, 640, 480, 1, 0.1, 0.1, 0.9, 0.9], b"image") for key in range(3)}
    path = written_by_hand(tmp_path, {**boxes, 3: image_payload(7, b"image")})
    said = r"labels are arrays of 9 numbers, as for detection, in 3 of 4 records, first of key 0: nothing says which"
    with pytest.raises(ValueError, match=said):
        RecordSource(path)


def test_a_file_of_identities_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of its 1 records holds an image"):
        RecordSource(written_by_hand(tmp_path, {0: array_payload([1, 1])}))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.rec is missing"):
        RecordSource(tmp_path / "no.rec")
    path = written(tmp_path, [0], [b"a"])
    path.with_suffix(".idx").unlink()
    path.with_suffix(".idx").symlink_to("gone.idx")
    with pytest.raises(FileNotFoundError, match=r"train\.idx is missing"):
        RecordSource(path)


def test_a_file_cut_short_while_open_is_reported(tmp_path: Path) -> None:
    path = written(tmp_path, [0, 1], [b"a" * 100, b"b" * 100])
    source = RecordSource(path)
    os.truncate(path, 150)
    assert source.read(0).tobytes() == b"a" * 100
    with pytest.raises(ValueError, match=r"train\.rec: 100 bytes at byte 164 reach past its end: the file was cut"):
        source.read(1)


def test_a_pickled_source_reads_the_same(tmp_path: Path) -> None:
    source = RecordSource(written(tmp_path, [0, 1], [b"a", MAGIC]))
    assert contents(pickle.loads(pickle.dumps(source))) == [(0, b"a"), (1, MAGIC)]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # the child only reads
def test_a_forked_process_reads_beside_its_parent(tmp_path: Path) -> None:
    images = [os.urandom(64) for _ in range(200)]
    source = RecordSource(written(tmp_path, list(range(200)), images))
    child = os.fork()
    wrong = sum(source.read(sample).tobytes() != image for _ in range(20) for sample, image in enumerate(images))
    if child == 0:
        os._exit(min(wrong, 100))
    assert wrong == 0
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("label", [2**24 + 1, -1])
def test_labels_that_float32_cannot_hold_are_refused(tmp_path: Path, label: int) -> None:
    with RecordWriter(tmp_path / "train.rec") as writer:
        writer.append(2**24, b"a")
        with pytest.raises(ValueError, match=r"exact in 0\.\.2\*\*24"):
            writer.append(label, b"b")
        with pytest.raises(ValueError, match="empty"):
            writer.append(1, b"")
    assert contents(RecordSource(tmp_path / "train.rec")) == [(2**24, b"a")]


@pytest.mark.parametrize("name", ["train.rec", "train.idx"])
def test_existing_files_are_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(FileExistsError, match=f"{name} exists and is never overwritten"):
        RecordWriter(tmp_path / "train.rec")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_failed_writer_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> None:
        with RecordWriter(tmp_path / "train.rec") as writer:
            writer.append(0, b"a")
            raise RuntimeError("the camera broke")

    def empty() -> None:
        with RecordWriter(tmp_path / "train.rec"):
            pass

    with pytest.raises(RuntimeError, match="the camera broke"):
        broken()
    with pytest.raises(ValueError, match="no image was appended"):
        empty()
    assert list(tmp_path.iterdir()) == []


def test_another_writer_that_was_faster_is_not_overwritten(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "train.rec")
    writer.append(0, b"a")
    (tmp_path / "train.idx").write_text("the other's")
    with pytest.raises(FileExistsError, match="never overwritten"):
        writer.close()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the other's"]
