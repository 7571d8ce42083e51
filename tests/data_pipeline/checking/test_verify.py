import io
import os
import pickle
import signal
import struct
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from encoded import FORMATS, encoded
from numpy.typing import NDArray

from data_pipeline.checking import problems as module
from data_pipeline.checking.inspection import inspection
from data_pipeline.checking.problems import CHUNK_BYTES, CHUNK_IMAGES, Chunk, Decoders, Problem, chunks, problems
from data_pipeline.checking.quarantine import QuarantineWriter
from data_pipeline.converting.convert import convert
from data_pipeline.formats.by_path import source_at
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.images.checks import kind_of
from data_pipeline.loader.bad_images import BadImages
from data_pipeline.source import Source

JPEG = FORMATS["JPEG"][1]
HUFFMAN = JPEG.index(b"\xff\xc4") + 5
BROKEN_INSIDE = JPEG[:HUFFMAN] + b"\xfe" * 16 + JPEG[HUFFMAN + 16 :]
DAMAGED = {7: JPEG[:-2], 300: encoded("GIF"), 301: b"\0" * 10, 555: BROKEN_INSIDE}


class Repeated(Source):
    """`count` images of one class: one content, and others at some places; what cannot be read raises."""

    def __init__(self, count: int, content: bytes, others: dict[int, bytes | Exception]) -> None:
        self.labels, self.content, self.others = np.zeros(count, np.int64), content, others

    def read(self, sample: int) -> NDArray[np.uint8]:
        found = self.others.get(sample, self.content)
        if isinstance(found, Exception):
            raise found
        return np.frombuffer(found, np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> RecordSource:
    with RecordWriter(tmp_path / "train.rec") as writer:
        for sample in range(600):
            writer.append(0, DAMAGED.get(sample, JPEG))
    return RecordSource(tmp_path / "train.rec")


def kinds(problems: Iterator[Problem]) -> dict[int, str]:
    return {sample: kind_of(reason) for sample, reason in problems}


def test_every_damaged_image_is_found_in_order(source: RecordSource) -> None:
    found = kinds(problems(source, workers=1))
    assert found == {7: "truncated", 300: "wrong format", 301: "wrong format", 555: "cannot be decoded"}
    assert list(found) == sorted(found)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_fast_way_finds_what_headers_show(source: RecordSource, workers: int) -> None:
    found = kinds(problems(source, fast=True, workers=workers))
    assert found == {7: "truncated", 300: "wrong format", 301: "wrong format"}


@pytest.mark.processes
def test_processes_find_the_same_as_one_thread(source: RecordSource) -> None:
    assert list(problems(source, workers=2)) == list(problems(source, workers=1))


def test_an_image_that_cannot_be_read_is_a_problem_like_others(source: RecordSource) -> None:
    os.truncate(source.name(0).split(" key ")[0], 100_000)
    found = kinds(problems(source, workers=1))
    lost = [sample for sample, kind in found.items() if kind == "cannot be read"]
    assert lost == list(range(lost[0], 600)), "all behind the cut, and nothing before it"
    assert 0 < lost[0] < 200
    assert [sample for sample, kind in kinds(problems(source, fast=True)).items() if kind == "cannot be read"] == lost
    gone = Repeated(3, JPEG, {1: FileNotFoundError("a.jpg is missing")})
    assert list(problems(gone)) == [Problem(1, "cannot be read: a.jpg is missing")]


def test_what_the_decoder_of_training_refuses_is_a_problem_beside_others() -> None:
    lzma = encoded("TIFF", compression="lzma")  # Pillow decodes it
    source = Repeated(2 * CHUNK_IMAGES, JPEG, {3: lzma, 4: ValueError("lost"), 5: JPEG[:-2], CHUNK_IMAGES: lzma})
    refused = f"cannot be decoded: DALI, which decodes in training, refuses its {len(lzma):,} bytes"
    found = dict(problems(source, workers=1))
    assert found.keys() == {3, 4, 5, CHUNK_IMAGES}
    assert found[3] == found[CHUNK_IMAGES] == refused


def in_every_form(folder: Path, images: list[bytes]) -> dict[str, Path]:
    """A set of two classes of one image after the other, in each form that is read."""
    members, lines, records = [], [], b""
    for at, image in enumerate(images):
        file = folder / "folder" / f"{at % 2}" / f"{at:03}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image)
        lines.append(f"folder/{at % 2}/{at:03}.jpg {at % 2}\n")
        payload = struct.pack("<IfQQ", 0, at % 2, at, 0) + image
        records += struct.pack("<II", 0xCED7230A, len(payload)) + payload + bytes(-len(payload) % 4)
        members += [(f"{at}.jpg", image), (f"{at}.cls", b"%d" % (at % 2))]
    (folder / "list.txt").write_text("".join(lines))
    (folder / "one.rec").write_bytes(records)
    pq.write_table(pa.table({"image": images, "label": [at % 2 for at in range(len(images))]}), folder / "t.parquet")
    (folder / "pairs.bin").write_bytes(pickle.dumps((images, [True] * (len(images) // 2))))
    with tarfile.open(folder / "one.tar", "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return {name: folder / name for name in ("folder", "list.txt", "one.rec", "one.tar", "t.parquet", "pairs.bin")}


@pytest.mark.parametrize("form", ["folder", "list.txt", "one.rec", "one.tar", "t.parquet", "pairs.bin"])
def test_an_image_of_no_bytes_is_damage_of_one_image_in_every_form(tmp_path: Path, form: str) -> None:
    images = [encoded("JPEG", quality=quality) for quality in range(50, 58)]
    images[5] = b""
    path = in_every_form(tmp_path, images)[form]
    source = source_at(path)
    (bad,) = problems(source, fast=True)
    assert bad.sample == (6 if form == "folder" else 5)
    assert "empty" in bad.reason
    assert set(inspection(source).problems) == {bad.sample}
    usable = BadImages(source, seed=0).usable_images(np.zeros(8, np.int64), np.arange(8))
    assert usable.replaced >= 1
    assert min(map(len, usable.encoded)) > 0
    if form != "pairs.bin":
        with pytest.raises(ValueError, match=r"empty.*\. To leave such images out"):
            convert([path], tmp_path / "out", workers=1)
    with QuarantineWriter(tmp_path / "q.tsv", source) as quarantine:
        quarantine.append(*bad)
    written = convert([path], tmp_path / "whole", workers=1, quarantine=tmp_path / "q.tsv")
    assert len(written) == 7
    assert list(problems(source_at(tmp_path / "whole"), workers=1)) == []


def test_chunks_end_at_a_number_of_images_or_of_bytes() -> None:
    small = list(chunks(Repeated(2 * CHUNK_IMAGES + 1, b"x", {3: ValueError("lost")})))
    assert [len(chunk.images) for chunk in small] == [CHUNK_IMAGES, CHUNK_IMAGES, 1]
    assert [chunk.first for chunk in small] == [0, CHUNK_IMAGES, 2 * CHUNK_IMAGES]
    assert small[0].images[2:4] == [b"x", "cannot be read: lost"]
    large = list(chunks(Repeated(5, bytes(CHUNK_BYTES // 2), {})))
    assert [len(chunk.images) for chunk in large] == [2, 2, 1]


@pytest.mark.parametrize("fast", [False, True])
def test_memory_does_not_grow_with_the_set(fast: bool) -> None:
    source = Repeated(200, JPEG + bytes(1 << 20), {})  # 200 MB as read
    tracemalloc.start()
    try:
        assert list(problems(source, fast=fast, workers=1)) == []
        assert tracemalloc.get_traced_memory()[1] < 6 * CHUNK_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.processes
def test_an_image_that_kills_its_process_is_named_and_the_rest_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_reasons", deadly_reasons)
    with Decoders(2, 2**26) as decoders:
        jobs = [Chunk(0, [b"fine", b"deadly", "lost"]), Chunk(3, [b"fine"]), Chunk(4, [b"deadly"])]
        submitted = [decoders.submit(job) for job in jobs]
        found = [decoders.reasons(job, future) for job, future in zip(jobs, submitted, strict=True)]
        killed = "cannot be decoded: the process that tried was killed (a crash of the decoder, or lack of memory)"
        assert found == [[None, killed, "lost"], [None], [killed]]
        assert decoders.reasons(jobs[1], decoders.submit(jobs[1])) == [None], "the pool was replaced"


def deadly_reasons(images: list[bytes | str], largest_pixels: int) -> list[str | None]:
    """Stands in for a decoder with a fault: none is known in the formats that are let through to one."""
    if b"deadly" in images:
        os.kill(os.getpid(), signal.SIGKILL)
    return [image if isinstance(image, str) else None for image in images]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"workers": 0}, "0 workers"), ({"largest_pixels": 0}, "expected 1 to"), ({"largest_pixels": 10**9}, "Pillow")],
)
def test_what_makes_no_sense_is_refused_at_once(source: RecordSource, arguments: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        problems(source, **arguments)  # type: ignore[arg-type]


def test_the_bound_on_pixels_can_be_set(source: RecordSource) -> None:
    found = kinds(problems(source, fast=True, largest_pixels=100))
    assert len(found) == 600
    assert found[0] == "too many pixels"
