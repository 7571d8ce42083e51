"""Conversions: what comes out, that no interruption shows in it, and what is refused."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoded import FORMATS, encoded
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.checking.checksums import stored_checksums
from data_pipeline.checking.problems import problems
from data_pipeline.converting import plan
from data_pipeline.converting.convert import convert
from data_pipeline.converting.parts import CHUNK_BYTES
from data_pipeline.converting.plan import Form, conversion_plan, description
from data_pipeline.converting.work_folder import Done, WorkFolder
from data_pipeline.formats.by_path import source_at
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.formats.table.names import ColumnNames
from data_pipeline.images.checks import kind_of
from data_pipeline.order.shuffled import permuted
from data_pipeline.packing.folder import pack_folder
from data_pipeline.source import Source

JPEGS = [encoded("JPEG", quality=40 + at) for at in range(26)]
PEOPLE = {"zoe": 7, "ann": 1, "bob": 12, "cid": 6}
NAMES = "label\tidentity\timages\n0\tann\t1\n1\tbob\t12\n2\tcid\t6\n3\tzoe\t7\n"


def people(root: Path) -> Path:
    """A folder of 26 different JPEGs of four people."""
    images = iter(JPEGS)
    for name, count in PEOPLE.items():
        (root / name).mkdir(parents=True)
        for at in range(count):
            (root / name / f"{at:02}.jpg").write_bytes(next(images))
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return people(tmp_path / "people")


def images(source: Source) -> list[tuple[int, bytes]]:
    return [(source.label(sample), source.read(sample).tobytes()) for sample in range(len(source))]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("tar-index")}


def test_a_folder_becomes_the_same_records_as_by_pack_folder(source: Path, tmp_path: Path) -> None:
    pack_folder(source, tmp_path / "packed")
    convert([source], tmp_path / "out", images_per_part=4, workers=2)
    found = contents(tmp_path / "out")
    checksums = np.load(io.BytesIO(found.pop("checksums.npy")))
    assert found == contents(tmp_path / "packed")
    assert found["identities.tsv"].decode() == NAMES
    assert checksums.tolist() == [zlib.crc32(image) for _, image in images(source_at(source))]
    assert not (tmp_path / "out.partial").exists()


def test_records_to_shards_and_back_are_the_same_to_the_byte(source: Path, tmp_path: Path) -> None:
    rec, tar, back = tmp_path / "rec", tmp_path / "tar", tmp_path / "back"
    convert([source], rec, workers=1)
    convert([rec], tar, to="tar", images_per_part=10, workers=1)
    assert sorted(path.name for path in tar.glob("*.tar")) == [f"shard-{at:06d}.tar" for at in range(3)]
    assert images(source_at(tar)) == images(source_at(rec)) == images(source_at(source))
    convert([tar], back, workers=1)
    assert contents(back) == contents(rec)


@pytest.mark.parametrize("images_per_part", [1, 7, 26])
@pytest.mark.parametrize("shuffle", [None, 5])
def test_the_size_of_parts_and_the_number_of_workers_do_not_show(
    source: Path, tmp_path: Path, images_per_part: int, shuffle: int | None
) -> None:
    convert([source], tmp_path / "whole", shuffle=shuffle, workers=1)
    convert([source], tmp_path / "parts", shuffle=shuffle, workers=3, images_per_part=images_per_part)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_records_that_hold_the_magic_number_survive_the_join(tmp_path: Path) -> None:
    magic = b"\x0a\x23\xd7\xce"
    with RecordWriter(tmp_path / "a.rec") as writer:
        for label, tail in enumerate((b"", magic, b"12" + magic, magic * 3)):
            writer.append(label, JPEGS[0] + bytes(-len(JPEGS[0]) % 4) + tail)
    convert([tmp_path / "a.rec"], tmp_path / "out", images_per_part=1, workers=1)
    assert (tmp_path / "out" / "train.rec").read_bytes() == (tmp_path / "a.rec").read_bytes()
    assert (tmp_path / "out" / "train.idx").read_bytes() == (tmp_path / "a.idx").read_bytes()


@pytest.mark.parametrize("to", ["rec", "tar"])
def test_a_shuffled_set_is_a_permutation_that_the_seed_stands_for(source: Path, tmp_path: Path, to: Any) -> None:
    plain = images(source_at(source))
    for seed in (1, 2):
        convert([source], tmp_path / f"{seed}", to=to, shuffle=seed, images_per_part=9, workers=2)
        order = permuted(np.arange(26), 26, seed, 0)
        assert images(source_at(tmp_path / f"{seed}")) == [plain[sample] for sample in order]
        assert (tmp_path / f"{seed}" / "identities.tsv").read_text() == NAMES
    assert contents(tmp_path / "1") != contents(tmp_path / "2")
    if to == "rec":
        keys = [int(line.split()[0]) for line in (tmp_path / "1" / "train.idx").read_text().splitlines()]
        assert keys == list(range(26)), "im2rec's layout: no header, no identities"


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from data_pipeline.converting.convert import convert
from data_pipeline.converting.work_folder import WorkFolder

point, source, out, to = sys.argv[1:]
keep, copy = WorkFolder.keep, shutil.copyfileobj

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def copied(source, target, length):
    if "part-000002" in source.name:
        target.write(source.read(1000))
        target.flush()
        die()
    copy(source, target, length)

if point == "part 3 is not noted":
    WorkFolder.keep = lambda self, part, columns: die() if part == 3 else keep(self, part, columns)
elif point == "part 2 is half joined":
    shutil.copyfileobj = copied
else:
    WorkFolder.publish = die
convert([Path(source)], Path(out), to=to, images_per_part=4, workers=1)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("point", "to"),
    [
        ("part 3 is not noted", "rec"),
        ("part 3 is not noted", "tar"),
        ("part 2 is half joined", "rec"),
        ("only the name is missing", "rec"),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bytes(source: Path, tmp_path: Path, point: str, to: Any) -> None:
    convert([source], tmp_path / "whole", to=to, images_per_part=4, workers=1)
    out, work = tmp_path / "out", tmp_path / "out.partial"
    command = [sys.executable, "-c", KILLED, point, str(source), str(out), to]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    assert not out.exists()
    done = sorted(work.glob("parts/*.json"))
    assert 0 < len(done) <= 7, "some parts of 7 were done"
    before = {path.name: path.stat().st_ino for path in work.glob("set/*.tar")} if to == "tar" else {}
    convert([source], out, to=to, images_per_part=4, workers=2)
    assert contents(out) == contents(tmp_path / "whole")
    assert not work.exists()
    kept = sorted(before)[: len(done)]
    assert [(out / name).stat().st_ino for name in kept] == [before[name] for name in kept], "not written again"


class Interruption(KeyboardInterrupt):
    """Control-C at a moment of the test's choosing."""


@pytest.fixture
def begun(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a set is to appear of which three parts are there."""
    keep = WorkFolder.keep

    def keep_or_end(folder: WorkFolder, part: int, columns: NDArray[np.void]) -> Done:
        if part == 3:
            raise Interruption
        return keep(folder, part, columns)

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "keep", keep_or_end)
        with pytest.raises(Interruption):
            convert([source], tmp_path / "out", images_per_part=4, workers=1)
    return tmp_path / "out"


def test_what_an_interruption_left_is_of_use_to_the_same_command_only(source: Path, begun: Path) -> None:
    with pytest.raises(ValueError, match=r"out\.partial holds an unfinished .* \(shuffle was None and is 3\)"):
        convert([source], begun, images_per_part=4, shuffle=3, workers=1)
    with pytest.raises(ValueError, match="images per part was 4 and is 5"):
        convert([source], begun, images_per_part=5, workers=1)
    convert([source], begun, images_per_part=4, workers=1)
    assert images(source_at(begun)) == images(source_at(source))


def test_a_source_that_changed_in_between_is_refused(source: Path, begun: Path) -> None:
    face = source / "bob" / "05.jpg"
    before = face.read_bytes()
    face.write_bytes(JPEGS[0])
    with pytest.raises(ValueError, match=r"contents was .* remove that folder to begin anew"):
        convert([source], begun, images_per_part=4, workers=1)
    face.write_bytes(before)
    face.rename(source / "cid" / "05a.jpg")
    with pytest.raises(ValueError, match="labels was"):
        convert([source], begun, images_per_part=4, workers=1)
    assert not begun.exists()


def test_records_written_anew_are_another_source_even_if_they_look_the_same(source: Path, tmp_path: Path) -> None:
    convert([source], tmp_path / "rec", workers=1)
    plan = conversion_plan(
        [tmp_path / "rec"],
        to="tar",
        seed=None,
        join="offset",
        columns=ColumnNames(),
        size=None,
        quality=95,
        images_per_part=4,
    )
    before = description(plan, [tmp_path / "rec"])
    os.utime(tmp_path / "rec" / "train.rec", ns=(0, 0))
    after = description(plan, [tmp_path / "rec"])
    assert [name for name in before if before[name] != after[name]] == ["files"]


def test_a_part_that_vanished_is_named_and_no_hole_is_left(source: Path, begun: Path) -> None:
    work = begun.with_name("out.partial")
    (work / "set" / "train.rec").write_bytes(b"")
    with pytest.raises(ValueError, match="the records of part 0 are gone; remove it to begin anew"):
        convert([source], begun, images_per_part=4, workers=1)


def test_two_processes_do_not_convert_into_one_folder(source: Path, begun: Path) -> None:
    with begun.with_name("out.partial").joinpath("lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is converting here"):
            convert([source], begun, images_per_part=4, workers=1)
    convert([source], begun, images_per_part=4, workers=1)


def test_an_image_that_cannot_be_read_ends_the_run_with_its_name(source: Path, tmp_path: Path) -> None:
    (source / "cid" / "03.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cid/03\.jpg is an empty file"):
        convert([source], tmp_path / "out", images_per_part=4, workers=2)
    assert not (tmp_path / "out").exists()


def test_with_a_size_every_image_becomes_a_jpeg_of_it(source: Path, tmp_path: Path) -> None:
    (source / "bob" / "03.jpg").write_bytes(FORMATS["PNG"][1])
    convert([source], tmp_path / "out", to="tar", size=16, quality=80, images_per_part=5, workers=1)
    for _, image in images(source_at(tmp_path / "out")):
        with Image.open(io.BytesIO(image)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (16, 16))
    assert (tmp_path / "out" / "property").read_text() == "4,16,16\n"
    (source / "cid" / "03.jpg").write_bytes(JPEGS[3][:500])
    with pytest.raises(ValueError, match=r"cid/03\.jpg cannot be encoded anew: Truncated File Read"):
        convert([source], tmp_path / "other", size=16, workers=1)


@pytest.mark.processes
def test_processes_encode_the_same_bytes_as_a_thread(source: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        convert([source], tmp_path / f"{workers}", size=16, images_per_part=5, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


@pytest.mark.parametrize("form", ["rec", "tar"])
@pytest.mark.parametrize("ids", [(2**24 + 1, 900_000_000), (1, 2)])
def test_labels_with_gaps_are_numbered_anew_and_kept_as_names(
    source: Path, tmp_path: Path, form: Form, ids: tuple[int, int]
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"people/ann/00.jpg {ids[1]}\npeople/bob/00.jpg {ids[0]}\n")
    written = convert([listed], tmp_path / "out", to=form, workers=1)
    assert source_at(tmp_path / "out").labels.tolist() == written.labels.tolist() == [1, 0]
    assert (tmp_path / "out" / "identities.tsv").read_text() == (
        f"label\tidentity\timages\n0\t{ids[0]}\t1\n1\t{ids[1]}\t1\n"
    )
    assert (tmp_path / "out" / "property").read_text().startswith("2,")


def test_labels_that_records_cannot_hold_are_refused_for_them_only(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "LARGEST_EXACT", 2)  # of four people
    with pytest.raises(ValueError, match=r"label 3: .*: write tar shards"):
        convert([source], tmp_path / "out", workers=1)
    convert([source], tmp_path / "out", to="tar", workers=1)


def test_images_that_shards_do_not_hold_are_named(source: Path, tmp_path: Path) -> None:
    (source / "bob" / "03.tif").write_bytes(FORMATS["TIFF"][1])
    with pytest.raises(ValueError, match=r"bob/03\.tif: .* is no JPEG, PNG, WebP or BMP"):
        convert([source], tmp_path / "out", to="tar", workers=1)


def test_several_sets_become_one(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "others" / "bob"
    other.mkdir(parents=True)
    (other / "a.jpg").write_bytes(JPEGS[25])
    sources = [source, other.parent]
    convert(sources, tmp_path / "apart", workers=1)
    convert(sources, tmp_path / "merged", join="merge", workers=1)
    assert source_at(tmp_path / "apart").labels.tolist()[-1] == 4
    assert source_at(tmp_path / "merged").labels.tolist()[-1] == 1
    assert (tmp_path / "apart" / "identities.tsv").read_text().splitlines()[-1] == "4\t4\t1"
    assert "1\tbob\t13\n" in (tmp_path / "merged" / "identities.tsv").read_text()


def test_a_byte_that_flips_inside_a_picture_is_seen_by_its_checksum_only(source: Path, tmp_path: Path) -> None:
    convert([source], tmp_path / "out", workers=1)
    path_rec = tmp_path / "out" / "train.rec"
    content = bytearray(path_rec.read_bytes())
    scan = content.index(source_at(source).read(7).tobytes()) + len(JPEGS[7]) - 100
    content[scan] ^= 0x10
    path_rec.write_bytes(content)
    found = source_at(path_rec)
    assert list(problems(found, workers=1)) == []
    for path in (path_rec, path_rec.parent):
        checksums = stored_checksums([path], found)
        for fast in (True, False):
            (problem,) = problems(found, checksums=checksums, fast=fast, workers=1)
            assert (problem.sample, kind_of(problem.reason)) == (7, "checksum")
    with pytest.raises(ValueError, match=r"train\.rec key 8: checksum: its [\d,]+ bytes have CRC-32"):
        convert([path_rec], tmp_path / "copy", workers=1)


def test_of_joined_sets_each_has_its_own_checksums_or_none(source: Path, tmp_path: Path) -> None:
    convert([source], tmp_path / "out", workers=1)
    paths = [source, tmp_path / "out"]
    joined = source_at(paths)
    checksums = stored_checksums(paths, joined)
    assert checksums is not None
    assert list(problems(joined, checksums=checksums, fast=True)) == []
    assert checksums.problem(25, b"any") is None
    assert checksums.problem(26, b"any") is not None
    assert stored_checksums([source], source_at(source)) is None


def test_checksums_of_another_set_are_refused(source: Path, tmp_path: Path) -> None:
    convert([source], tmp_path / "out", workers=1)
    file, found = tmp_path / "out" / "checksums.npy", source_at(tmp_path / "out")
    np.save(file, np.zeros(3, np.uint32))
    with pytest.raises(ValueError, match=r"shape \(3,\) and the set 26 images"):
        stored_checksums([tmp_path / "out"], found)
    file.write_bytes(b"\x93NUMPY, but not much of it")
    with pytest.raises(ValueError, match=r"checksums\.npy cannot be read"):
        stored_checksums([tmp_path / "out"], found)


def test_nothing_is_overwritten(source: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("precious")
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "b").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for out, named in (("full", "full"), ("new", r"new\.partial"), ("file", "file")):
        with pytest.raises(FileExistsError, match=f"{named} exists"):
            convert([source], tmp_path / out, workers=1)
    with pytest.raises(ValueError, match="is a mount point"):
        convert([source], Path("/"), workers=1)
    with pytest.raises(ValueError, match=r"lies in .*people, which is to be read"):
        convert([source], source / "packed", workers=1)
    (tmp_path / "empty").mkdir()
    convert([source], tmp_path / "empty", workers=1)
    assert len(source_at(tmp_path / "empty")) == 26


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "0 workers: expected at least 1"),
        ({"images_per_part": 0}, "0 images in a part or shard"),
        ({"size": 0}, "a size of 0 pixels"),
        ({"quality": 101}, "a JPEG quality of 101"),
        ({"to": "zip"}, "to 'zip': expected 'rec' or 'tar'"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_written(
    source: Path, tmp_path: Path, options: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        convert([source], tmp_path / "out", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people"]


def test_memory_does_not_grow_with_a_part(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "a.rec") as writer:
        for _ in range(64):
            writer.append(0, JPEGS[0] + bytes(1 << 20))
    tracemalloc.start()
    try:
        convert([tmp_path / "a.rec"], tmp_path / "out", images_per_part=64, workers=1)
        assert tracemalloc.get_traced_memory()[1] < 4 * CHUNK_BYTES
    finally:
        tracemalloc.stop()
