"""Tar shards: written by this package, by Python's tarfile in each of its formats, by the system's tar; and damaged."""

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.formats.tar import index as tar_index
from data_pipeline.formats.tar import source as tar_shards
from data_pipeline.formats.tar.source import TarSource
from data_pipeline.formats.tar.writer import TarWriter
from data_pipeline.source import Source

Members = list[tuple[str, bytes]]
LONG = "identities/" + "n" * 300 + "/portrait"


def picture(seed: int, form: str = "jpeg") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


IMAGES = [picture(seed) for seed in range(7)]
LABELS = [5, 0, 0, 3, 1, 2, 5]
SAMPLES: Members = [
    member
    for key, (label, image) in enumerate(zip(LABELS, IMAGES, strict=True))
    for member in ((f"{key:04d}.jpg", image), (f"{key:04d}.cls", str(label).encode()))
]


def tar(path: Path, members: Members, tar_format: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=tar_format) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def contents(source: TarSource) -> list[tuple[int, bytes]]:
    return [(source.label(sample), source.read(sample).tobytes()) for sample in range(len(source))]


EXPECTED = list(zip(LABELS, IMAGES, strict=True))


def row(folder: Path, numbers: list[int], name: str = "shard-{:06d}.tar") -> Path:
    """A shard of one sample for each number; its label is the number."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        tar(folder / name.format(number), [("a.cls", b"%d" % number), ("a.jpg", IMAGES[number % 7])])
    return folder


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_of_every_tar_format_are_read(tmp_path: Path, form: int) -> None:
    source = TarSource(tar(tmp_path / "one.tar", SAMPLES, form))
    assert contents(source) == EXPECTED
    assert (len(source), source.num_classes, source.labels.dtype) == (7, 6, np.dtype(np.int64))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_too_long_for_a_header_are_read(tmp_path: Path, form: int) -> None:
    members = [(f"{LONG}-é.jpg", IMAGES[0]), (f"{LONG}-é.cls", b"4"), ("short.cls", b"2"), ("short.jpg", IMAGES[1])]
    source = TarSource(tar(tmp_path / "long.tar", members, form))
    assert contents(source) == [(4, IMAGES[0]), (2, IMAGES[1])]
    assert source.name(0) == f"{tmp_path}/long.tar {LONG}-é.jpg"
    assert source.name(1) == f"{tmp_path}/long.tar short.jpg"


def test_a_name_in_two_parts_is_read(tmp_path: Path) -> None:
    folder = "f" * 90 + "/" + "g" * 50
    source = TarSource(tar(tmp_path / "prefix.tar", [(f"{folder}/a.jpg", IMAGES[0]), (f"{folder}/a.cls", b"4")]))
    assert source.name(0) == f"{tmp_path}/prefix.tar {folder}/a.jpg"


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs the command tar")
@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_what_the_command_tar_packs_is_read(tmp_path: Path, form: str) -> None:
    """A folder with what folders have: folders, links, files that are no samples."""
    folder = tmp_path / "set" / "deep"
    folder.mkdir(parents=True)
    for name, content in SAMPLES:
        (folder / name).write_bytes(content)
    (folder / "README").write_text("no sample")
    (folder / ".hidden.jpg").write_text("no sample")
    (folder / "0001.seg.png").write_bytes(picture(9, "png"))
    (folder / "link").symlink_to("README")
    os.link(folder / "README", folder / "README.again")
    subprocess.run(
        ["tar", f"--format={form}", "--sort=name", "-cf", tmp_path / "made.tar", "."], cwd=tmp_path / "set", check=True
    )
    source = TarSource(tmp_path / "made.tar")
    assert contents(source) == EXPECTED
    assert source.name(3) == f"{tmp_path}/made.tar ./deep/0003.jpg"


def test_a_number_in_base_256_and_a_size_from_pax_are_understood(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = len(IMAGES[0])
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    label = tarfile.TarInfo("a.cls")
    label.size, label.pax_headers = 1, {"size": "1", "comment": "a=b\nc"}
    header[124:136] = b"\x80" + len(IMAGES[0]).to_bytes(11, "big")
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 256 + sum(header[156:]))
    body = bytes(header) + IMAGES[0] + bytes(-len(IMAGES[0]) % 512)
    body += label.tobuf(tarfile.PAX_FORMAT) + b"7" + bytes(511) + bytes(1024)
    (tmp_path / "large.tar").write_bytes(body)
    assert contents(TarSource(tmp_path / "large.tar")) == [(7, IMAGES[0])]


def test_a_checksum_over_signed_bytes_is_one_too(tmp_path: Path) -> None:
    content = tar(tmp_path / "signed.tar", [("é.jpg", IMAGES[0]), ("é.cls", b"4")], tarfile.GNU_FORMAT).read_bytes()
    header = bytearray(content[:512])
    header[148:156] = b"%06o\0 " % (int(header[148:154], 8) - 2 * 256)
    (tmp_path / "signed.tar").write_bytes(bytes(header) + content[512:])
    assert contents(TarSource(tmp_path / "signed.tar")) == [(4, IMAGES[0])]


def test_members_of_a_sample_may_lie_apart_and_in_any_order(tmp_path: Path) -> None:
    shuffled = list(SAMPLES)
    random.Random(1).shuffle(shuffled)
    assert sorted(contents(TarSource(tar(tmp_path / "apart.tar", shuffled)))) == sorted(EXPECTED)


def test_every_kind_of_image_is_taken_by_its_extension_in_either_case(tmp_path: Path) -> None:
    members: Members = []
    for label, extension in enumerate(("jpg", "JPEG", "png", "webp", "bmp")):
        form = {"jpg": "jpeg"}.get(extension, extension.lower())
        members += [(f"{label}.{extension}", picture(label, form)), (f"{label}.cls", b" %d\n" % label)]
    assert [label for label, _ in contents(TarSource(tar(tmp_path / "kinds.tar", members)))] == [0, 1, 2, 3, 4]


def test_labels_come_from_json_where_that_is_asked_for(tmp_path: Path) -> None:
    members = [
        (f"{key}.{extension}", content)
        for key, image in enumerate(IMAGES)
        for extension, content in (
            ("jpg", image),
            ("json", json.dumps({"label": 10 + key, "name": "x" * 5000}).encode()),
            ("cls", b"7"),
        )
    ]
    path = tar(tmp_path / "both.tar", members)
    assert TarSource(path, label_from="json").labels.tolist() == list(range(10, 17))
    assert TarSource(path).labels.tolist() == [7] * 7, "each has an index of its own"
    with pytest.raises(ValueError, match='label_from \'txt\': expected "cls" or "json"'):
        TarSource(path, label_from="txt")  # type: ignore[arg-type]


# Which shards


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    row(tmp_path, list(range(12)), "part-{}.tar")
    (tmp_path / "notes.txt").write_text("passed over")
    (tmp_path / ".hidden.tar").write_text("passed over")
    assert TarSource(tmp_path).labels.tolist() == list(range(12))
    assert TarSource(str(tmp_path / "part-*.tar")).labels.tolist() == list(range(12))


def test_braces_name_shards_and_lists_name_anything(tmp_path: Path) -> None:
    row(tmp_path, [2, 3, 4, 9])
    assert TarSource(tmp_path / "shard-{000002..000004}.tar").labels.tolist() == [2, 3, 4]
    assert TarSource(tmp_path / "shard-00000{9,2}.tar").labels.tolist() == [9, 2]
    assert TarSource(tmp_path / "sh{a}rd-00000{9,3}.{tar}").labels.tolist() == [9, 3]
    assert TarSource([tmp_path / "shard-000009.tar", tmp_path / "shard-000002.tar"]).labels.tolist() == [9, 2]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    row(tmp_path, [3], "a{{1,2}}[x]-{}.tar")
    assert TarSource(tmp_path / "a{1,2}[x]-3.tar").labels.tolist() == [3]


def test_a_gap_in_a_row_of_shards_is_refused(tmp_path: Path) -> None:
    row(tmp_path, [3, 4, 6, 12])
    for path in (tmp_path, tmp_path / "shard-*.tar"):
        with pytest.raises(
            ValueError, match=r"shard-000003.tar to shard-000012.tar 6 are missing, number 5, 7, 8, 9, 10"
        ):
            TarSource(path)
    row(tmp_path / "of", [0, 2], "a-{:03d}-of-003.tar")
    with pytest.raises(ValueError, match="1 are missing, number 1: copy them again, or name the shards you mean"):
        TarSource(tmp_path / "of")
    row(tmp_path / "twice", [1], "s-{}.tar")
    row(tmp_path / "twice", [1], "s-{:03d}.tar")
    with pytest.raises(ValueError, match="have the same number"):
        TarSource(tmp_path / "twice")


@pytest.mark.parametrize(
    ("pattern", "error", "said"),
    [
        ("shard-{000003..000005}.tar", ValueError, "1 of 3 shards are missing: .*shard-000005.tar. Copy"),
        ("shard-{5..3}.tar", ValueError, "the smaller one first"),
        ("shard-{0..9999999}.tar", ValueError, "at most 1,000,000 numbers"),
        ("{0..9999}{0..9999}.tar", ValueError, "stands for more than 1,000,000 names"),
        ("none.tar", FileNotFoundError, "none.tar is missing"),
        ("none-*.tar", FileNotFoundError, "holds no .tar file"),
        ("empty", FileNotFoundError, "empty holds no .tar file; a compressed one"),
    ],
)
def test_shards_that_are_not_there_are_refused(tmp_path: Path, pattern: str, error: type[Exception], said: str) -> None:
    row(tmp_path, [3, 4])
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=said):
        TarSource(tmp_path / pattern)


def test_no_shard_and_one_named_twice_are_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "one.tar", SAMPLES)
    with pytest.raises(FileNotFoundError, match="names no tar file"):
        TarSource([])
    with pytest.raises(ValueError, match=r"one.tar is meant 2 times"):
        TarSource([path, tmp_path])


# Damage

TURNS = 500


@pytest.mark.parametrize("content", [b'{"label": 3}', b'{"cls": 3, "url": "x"}', b'{"identity": 3}'])
def test_labels_are_read_from_json_members_where_there_is_no_cls(tmp_path: Path, content: bytes) -> None:
    path = tar(tmp_path / "one.tar", [("a.jpg", IMAGES[0]), ("a.json", content), ("a.txt", b"a face")])
    for _ in range(2):  # the second time by the index that was kept
        assert contents(TarSource(path)) == [(3, IMAGES[0])]
    both = tar(tmp_path / "both.tar", [("a.jpg", IMAGES[0]), ("a.json", content), ("a.cls", b"7")])
    assert TarSource(both).labels.tolist() == [7]


@pytest.mark.parametrize("label", [("cls", b"1"), ("json", b'{"label": 1}')])
def test_samples_that_a_dot_in_their_names_would_lose_are_refused(tmp_path: Path, label: tuple[str, bytes]) -> None:
    extension, content = label
    plain: Members = [("x/a.jpg", IMAGES[0]), (f"x/a.{extension}", content), ("x/a.seg.png", b"mask")]
    assert TarSource(tar(tmp_path / "plain.tar", plain)).labels.tolist() == [1]
    dotted: Members = [("x/a.v2.jpg", IMAGES[0]), (f"x/a.v2.{extension}", content)]
    for members in ([*plain, *dotted], dotted if extension == "cls" else [*dotted, *plain]):
        with pytest.raises(ValueError, match=r"1 images and their labels have a dot in their names, such as x/a\.v2"):
            TarSource(tar(tmp_path / "dotted.tar", members))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("a.jpg", IMAGES[0])], "at byte 0: no .cls beside it gives its label: add it, or take labels from .json"),
        ([*SAMPLES, ("x/b.png", b"1")], r"member x/b.png at byte \d+: no .cls"),
        ([("a.cls", b"1")], r"member a.cls at byte 0: it labels no image"),
        ([("a.cls", b"1"), ("a.tiff", b"1")], "it labels no image"),
        ([("a.jpg", b"1"), ("a.png", b"2"), ("a.cls", b"1")], "a.png at byte 1024: its sample has another image"),
        ([("a.cls", b"1"), ("a.cls", b"1"), ("a.jpg", b"2")], "its sample has another label"),
        ([("a.jpg", b"1"), ("a.cls", b"cat")], "found b'cat' \\(3 bytes\\), expected the digits of a class"),
        ([("a.jpg", b"1"), ("a.cls", b"-1")], "expected the digits"),
        ([("a.jpg", b"1"), ("a.cls", b"1_0")], "expected the digits"),
        ([("a.jpg", b"1"), ("a.cls", b"")], r"found b'' \(0 bytes\)"),
        ([("a.jpg", b"1"), ("a.cls", b"9" * 19)], "expected the digits"),
        ([("a.jpg", b"1"), ("a.cls", b"0" * 100_000)], r"\(100000 bytes\)"),
        ([("README", b"1")], "holds no sample: expected members such as"),
    ],
)  # fmt: skip
def test_a_sample_without_a_label_or_an_image_is_refused(tmp_path: Path, members: Members, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TarSource(tar(tmp_path / "bad.tar", members))


@pytest.mark.parametrize(
    "content",
    [
        b"5",
        b'{"label": "5"}',
        b'{"label": true}',
        b'{"label": -1}',
        b'{"label": 1.0}',
        b"{}",
        b"{",
        b"\xff",
        b"[" * 10**5,
    ],
)
def test_json_without_a_class_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected an object such as \{\"label\": 42\}"):
        TarSource(tar(tmp_path / "bad.tar", [("a.jpg", b"1"), ("a.json", content)]), label_from="json")


def test_a_shard_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", SAMPLES).read_bytes()
    end = len(whole.rstrip(b"\0"))
    path = tmp_path / "cut.tar"
    for size in [0, 1, 511, 512, 513, *range(1024, end, 700), end // 512 * 512 + 512]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut.tar, byte \d+: .*(reaches past the end|without the empty blocks)"):
            TarSource(path)


def test_a_changed_header_compression_and_a_second_tar_are_refused(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", SAMPLES).read_bytes()
    path = tmp_path / "bad.tar"
    path.write_bytes(whole[:100] + b"\1" + whole[101:])
    with pytest.raises(ValueError, match=r"bad.tar, byte 0: no tar header is there \(its checksum is wrong\)"):
        TarSource(path)
    path.write_bytes(whole + whole)
    with pytest.raises(ValueError, match=rf"byte {len(whole)}: the tar ended at byte \d+, yet more follows"):
        TarSource(path)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "whole.tar", "a.jpg")
    with pytest.raises(ValueError, match=r"is compressed \(gzip\), so nothing in it can be read by itself: unpack it"):
        TarSource(path)


def test_sparse_files_and_sizes_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.tar"
    info = tarfile.TarInfo("a.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match=r"a\.jpg is a sparse file: write the tar without --sparse"):
        TarSource(path)
    for field, said in (
        (b"-0000000001\0", "is no number"),
        (b"\xff" * 12, "is no number"),
        (b"77777777777\0", "reaches"),
    ):
        header = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.USTAR_FORMAT))
        header[124:136] = field
        header[148:156] = b"%06o\0 " % (sum(header[:148]) + 256 + sum(header[156:]))
        path.write_bytes(bytes(header) + bytes(1024))
        with pytest.raises(ValueError, match=f"byte 0: .*{said}"):
            TarSource(path)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"GNU.sparse.major": "1"}, "a sparse file"),
        ({"size": "many"}, "its pax size many is no number"),
        ({"comment": "x" * (2 << 20)}, "a name or pax entry of .* bytes; expected at most"),
    ],
)
def test_pax_entries_that_mislead_are_refused(tmp_path: Path, headers: dict[str, str], said: str) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = headers
    (tmp_path / "bad.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match=said):
        TarSource(tmp_path / "bad.tar")


def test_mutated_shards_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    """Shards with bytes changed, lost or added, mostly in headers."""
    generator = random.Random(0)
    long_names = [(f"{LONG}.jpg", IMAGES[0]), (f"{LONG}.cls", b"1"), *SAMPLES[:4]]
    seeds = [
        tar(tmp_path / "seed.tar", long_names, form).read_bytes() for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    ]
    path, complaints = tmp_path / "mutated.tar", []
    for turn in range(TURNS):
        content = bytearray(seeds[turn % 2])
        at = generator.randrange(len(content) // 512) * 512 + generator.choice([0, 124, 130, 148, 156, 345, 511])
        match generator.randrange(3):
            case 0:
                content[at] = generator.randrange(256)
                start = at // 512 * 512  # with a checksum that fits, so that what was changed is read
                header = content[start : start + 512]
                checksum = sum(header[:148]) + 256 + sum(header[156:])
                content[start + 148 : start + 156] = b"%06o\0 " % checksum
            case 1:
                del content[at : at + generator.choice([1, 512, 5000])]
            case 2:
                content[at:at] = generator.randbytes(generator.choice([1, 512]))
        path.write_bytes(content)
        try:
            contents(TarSource(path))
        except ValueError as error:
            complaints.append(str(error))
    assert TURNS / 4 < len(complaints) < TURNS
    assert all(str(path) in complaint for complaint in complaints)


# The kept index


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("tar-index-*"))


def test_the_index_is_kept_and_spares_the_next_opening_the_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row(tmp_path, [0, 1, 2])
    first = TarSource(tmp_path)
    assert len(kept(tmp_path)) == 1
    monkeypatch.setattr(tar_index, "members", None)  # whoever walks fails
    again = TarSource(tmp_path)
    assert contents(again) == contents(first)
    assert [again.name(sample) for sample in range(3)] == [first.name(sample) for sample in range(3)]
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert contents(TarSource(moved)) == contents(first)


def test_a_stale_index_is_made_anew(tmp_path: Path) -> None:
    row(tmp_path, [0, 1])
    assert TarSource(tmp_path).labels.tolist() == [0, 1]
    row(tmp_path, [2])
    assert TarSource(tmp_path).labels.tolist() == [0, 1, 2]
    path = tar(tmp_path / "shard-000001.tar", [("a.cls", b"6"), ("a.jpg", IMAGES[1])])  # of the same size
    os.utime(path, ns=(0, 12345))
    assert TarSource(tmp_path).labels.tolist() == [0, 6, 2]
    tar(path, SAMPLES)
    os.utime(path, ns=(0, 12345))
    assert TarSource(tmp_path).labels.tolist() == [0, *LABELS, 2]


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "other"])
def test_a_damaged_index_is_made_anew(tmp_path: Path, damage: str) -> None:
    row(tmp_path, [0, 1])
    expected = contents(TarSource(tmp_path))
    (path,) = kept(tmp_path)
    whole = path.read_bytes()
    at = whole.index(b"labels.npy") + 150
    if damage == "other":
        np.savez(path, seal=np.zeros(3))
    else:
        changed = whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "changed": changed}[damage])
    assert contents(TarSource(tmp_path)) == expected
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_to_is_read_without_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row(tmp_path, [0, 1])

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(np, "savez", refuse)  # root, who may run the tests, can write anywhere
    assert TarSource(tmp_path).labels.tolist() == [0, 1]
    assert kept(tmp_path) == []


# Reading


def test_tar_shards_are_a_named_source(tmp_path: Path) -> None:
    source: Source = TarSource(row(tmp_path, [0, 1]))
    assert source.name(1) == f"{tmp_path}/shard-000001.tar a.jpg"
    for sample in (-1, 2):
        with pytest.raises(IndexError, match=f"sample {sample} of 2"):
            source.read(sample)


def test_more_shards_than_may_be_open_are_read_from_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_shards, "MOST_OPEN", 2)
    source = TarSource(row(tmp_path, list(range(7))))
    open_before = len(os.listdir("/proc/self/fd"))
    order = [sample % 7 for sample in range(700)]
    with ThreadPoolExecutor(8) as pool:
        assert [image.tobytes() for image in pool.map(source.read, order)] == [IMAGES[sample] for sample in order]
    assert len(os.listdir("/proc/self/fd")) <= open_before + 2 + 8, "those that were held, and some that raced"
    again = pickle.loads(pickle.dumps(source))
    assert contents(again) == contents(source)


def test_a_shard_that_shrinks_or_vanishes_is_an_error_that_names_it(tmp_path: Path) -> None:
    row(tmp_path, [0, 1])
    source = TarSource(tmp_path)
    source.read(0)
    os.truncate(tmp_path / "shard-000000.tar", 1100)
    (tmp_path / "shard-000001.tar").unlink()
    with pytest.raises(ValueError, match=r"shard-000000.tar: \d+ bytes at byte 1536 reach past its end"):
        source.read(0)
    with pytest.raises(FileNotFoundError, match=r"shard-000001\.tar is missing"):
        source.read(1)
    assert source.name(1) == f"{tmp_path}/shard-000001.tar byte 1024"


# Writing


def written(folder: Path, first: int = 0, last: int = 7, **limits: int) -> list[str]:
    with TarWriter(folder, **limits) as writer:
        for label, image in EXPECTED[first:last]:
            writer.append(label, image)
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back_by_this_package_and_by_tarfile(tmp_path: Path) -> None:
    assert written(tmp_path, images_per_shard=3) == ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]
    assert contents(TarSource(tmp_path)) == EXPECTED
    with tarfile.open(tmp_path / "shard-000001.tar") as archive:
        assert archive.getnames() == [f"{key:09d}.{kind}" for key in (3, 4, 5) for kind in ("jpg", "cls")]
        assert {(member.mtime, member.uid, member.mode) for member in archive} == {(0, 0, 0o644)}
        label = archive.extractfile("000000003.cls")
        assert label is not None
        assert label.read() == b"3"


def test_no_shard_is_larger_than_is_allowed(tmp_path: Path) -> None:
    entry = 512 + len(IMAGES[0]) + -len(IMAGES[0]) % 512 + 1024
    written(tmp_path, bytes_per_shard=2 * entry + 1024)
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert len(sizes) == 4
    assert max(sizes) <= 2 * entry + 1024
    with pytest.raises(ValueError, match="more than a shard of 1000 bytes has room for"):
        written(tmp_path / "small", bytes_per_shard=1000)


def test_the_same_images_make_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        written(tmp_path / name, images_per_shard=4)
        digests.append([hashlib.sha256(path.read_bytes()).digest() for path in sorted((tmp_path / name).iterdir())])
    assert digests[0] == digests[1]


def test_several_writers_share_a_folder(tmp_path: Path) -> None:
    for shard, first in enumerate((0, 4)):
        written(tmp_path, first, first + 4, first_shard=shard, first_key=first)
    alone = tmp_path / "alone"
    written(alone, images_per_shard=4)
    for path in alone.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_the_extension_is_that_of_the_content(tmp_path: Path) -> None:
    forms = {"jpeg": "jpg", "png": "png", "webp": "webp", "bmp": "bmp"}
    with TarWriter(tmp_path) as writer:
        for label, form in enumerate(forms):
            writer.append(label, picture(label, form))
    source = TarSource(tmp_path)
    assert [source.name(sample).rpartition(".")[2] for sample in range(4)] == list(forms.values())


@pytest.mark.parametrize(
    ("label", "image", "error", "said"),
    [
        (-1, IMAGES[0], ValueError, "label -1 of image 4"),
        (10**18, IMAGES[0], ValueError, "expected 0 to 999999999999999999"),
        (1.5, IMAGES[0], TypeError, "float"),
        (1, b"", ValueError, r"image 4 \(0 bytes, first ''\) is no JPEG"),
        (1, b"GIF89a", ValueError, r"first '47494638'\) is no JPEG, PNG, WebP or BMP"),
    ],
)
def test_an_error_leaves_no_shard_behind(
    tmp_path: Path, label: int, image: bytes, error: type[Exception], said: str
) -> None:

    def write() -> None:
        with TarWriter(tmp_path / "new", images_per_shard=2) as writer:
            for written_label, written_image in EXPECTED[:4]:
                writer.append(written_label, written_image)
            assert [path.suffix for path in sorted((tmp_path / "new").iterdir())] == [".tar", ".partial"]
            writer.append(label, image)

    with pytest.raises(error, match=said):
        write()
    assert list((tmp_path / "new").iterdir()) == []


def test_an_existing_shard_is_not_written_over_and_an_empty_set_not_written(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(FileExistsError, match=r"shard-000000\.tar exists and is never overwritten"):
        TarWriter(tmp_path)
    (tmp_path / "shard-000002.tar").write_bytes(b"in the way")
    with pytest.raises(FileExistsError, match=r"shard-000002\.tar exists"):
        written(tmp_path, first_shard=1, images_per_shard=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard-000000.tar", "shard-000002.tar"]
    with pytest.raises(ValueError, match="no image was appended"):
        TarWriter(tmp_path / "none").close()
    with pytest.raises(ValueError, match="shards of 0 images"):
        TarWriter(tmp_path, images_per_shard=0)
