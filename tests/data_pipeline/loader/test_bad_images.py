"""Damaged images on the way to a batch: which others take their places, and what is said of them."""

from __future__ import annotations

import errno
import struct
import zlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from augment_twin import warped
from numpy.typing import NDArray
from pictures import (
    COUNT,
    EVERY_CHANGE,
    EVERYTHING,
    FORM,
    HEIGHT,
    WIDTH,
    encoded,
    loader,
    numbers,
    picture,
    pixels,
    record_source,
)

from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.augment.draws import Draws
from data_pipeline.augment.geometry import geometry_parameters
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.images.checks import image_problem
from data_pipeline.loader.bad_images import MOST_SUBSTITUTES, BadImages, image_or_problem, substitutes
from data_pipeline.loader.image_loader import Batch, ImageLoader, sequential_batches
from data_pipeline.read_ahead import ReadAhead
from data_pipeline.sets.joined import JoinedSource
from data_pipeline.sets.noisy import NoisyLabels
from data_pipeline.source import Source


def hollow_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of the right outline and checksums whose pixels end early: only a decoder sees that."""
    whole = encoded(pixels)
    at = whole.index(b"IDAT")
    (length,) = struct.unpack_from(">I", whole, at - 4)
    content = whole[at : at + 4 + length // 3]
    chunk = struct.pack(">I", length // 3) + content + struct.pack(">I", zlib.crc32(content))
    return whole[: at - 4] + chunk + whole[at + 8 + length :]


def bomb(side: int) -> bytes:
    """A PNG whose header promises more than its bytes hold, with the right checksum."""
    whole = encoded(picture(0))
    header = whole[12:16] + struct.pack(">II", side, side) + whole[24:29]
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


DAMAGE = {
    17: b"\0",
    3: b"no image at all",
    23: encoded(picture(23), "JPEG")[:300],
    8: encoded(picture(8))[:200],
    11: bomb(20_000),
    26: hollow_png(picture(26)),
    5: hollow_png(picture(5)),
}
UNDECODABLE = (5, 26)  # what no header tells


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> RecordSource:
    files = [DAMAGE.get(number, encoded(picture(number))) for number in range(COUNT)]
    return record_source(tmp_path_factory.mktemp("damaged"), files)


def batches_of(loader: ImageLoader, count: int = 9) -> list[Batch]:
    """Two epochs of 30 images, seven at a time, and a little more."""
    return list(islice(loader, count))


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_some_damage_only_the_decoder_sees() -> None:
    assert {number for number, content in DAMAGE.items() if image_problem(content) is None} == set(UNDECODABLE)


@pytest.mark.parametrize("augmentation", [None, EVERY_CHANGE], ids=["none", "every change"])
def test_damage_met_on_the_way_changes_no_tensor_of_a_run_that_had_it_quarantined(
    damaged: RecordSource, augmentation: Augmentation | None
) -> None:
    unaware = loader(damaged, augmentation=augmentation)
    warned = loader(damaged, augmentation=augmentation, quarantine=list(DAMAGE))
    found = batches_of(unaware)
    assert_same(found, batches_of(warned))
    assert unaware.images == warned.images == 63
    hit = sum(int(np.isin(unaware.plan(step).samples, list(DAMAGE)).sum()) for step in range(9))
    assert (unaware.replaced, warned.replaced) == (hit, 0)
    assert sum(batch.replaced for batch in found) == hit > 14  # each time one comes up, which is once an epoch


def test_a_substitute_brings_its_own_pixels_label_and_changes(damaged: RecordSource) -> None:
    batches = loader(damaged, augmentation=EVERYTHING, global_batch=COUNT)
    drawn, batch = batches.plan(0).samples, next(batches)
    shown = numbers(batch)
    assert not set(shown.tolist()) & set(DAMAGE)
    assert set(drawn[shown != drawn].tolist()) == set(DAMAGE)
    for found, number in zip(pixels(batch), shown, strict=True):
        draws = Draws(np.zeros(1, np.int64), np.array([number]), 3)
        matrix = geometry_parameters(EVERYTHING, draws, HEIGHT, WIDTH)["matrix"][0]
        assert np.abs(found - warped(picture(int(number)), matrix, 0)).max() < 0.51


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_ranks_replaces_damage_alike(damaged: RecordSource, size: int) -> None:
    alone = loader(damaged, augmentation=EVERY_CHANGE)
    ranks = [loader(damaged, rank=rank, size=size, augmentation=EVERY_CHANGE) for rank in range(size)]
    for whole, *parts in islice(zip(alone, *ranks, strict=True), 9):
        assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
        assert torch.equal(whole.labels, torch.cat([part.labels for part in parts]))
        assert whole.replaced == sum(part.replaced for part in parts)


def test_a_run_resumed_amid_damage_goes_on_bitwise(damaged: RecordSource) -> None:
    straight = batches_of(loader(damaged, augmentation=EVERY_CHANGE))
    for start in (1, 4, 7):
        resumed = loader(damaged, augmentation=EVERY_CHANGE, start_step=start)
        assert_same(batches_of(resumed, 9 - start), straight[start:])


def test_each_bad_image_is_logged_once_with_place_and_reason(
    damaged: RecordSource, caplog: pytest.LogCaptureFixture
) -> None:
    batches_of(loader(damaged, augmentation=EVERYTHING), 18)
    for number, reason in {
        17: "wrong format",
        3: "wrong format",
        23: "truncated: JPEG",
        8: "truncated: PNG",
        11: "false header: PNG of 20,000 x 20,000 pixels",
        26: f"cannot be decoded: {len(DAMAGE[26])} bytes, first 89504e47",
    }.items():
        said = [line for line in caplog.messages if line.startswith(f"sample {number} (")]
        assert len(said) == 1
        assert f"train.rec key {number + 1}) is replaced by another: {reason}" in said[0]
    assert len(caplog.messages) == len(DAMAGE)


def test_a_file_that_shrinks_while_it_is_read_costs_what_it_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = record_source(tmp_path, [encoded(picture(number)) for number in range(COUNT)])
    batches = loader(cut)
    next(batches)
    with (tmp_path / "train.rec").open("r+b") as file:
        file.truncate(20_000)
    for batch in islice(batches, 9):
        assert len(batch.labels) == 7
    assert 0 < batches.replaced < batches.images // 2
    assert all("cannot be read: " in line and "the file was cut short" in line for line in caplog.messages)
    assert len(caplog.messages) > 3
    with (tmp_path / "train.rec").open("r+b") as file:
        file.truncate(0)
    for _ in range(2):  # and again: a loop that swallows the error must not go on without the batch
        with pytest.raises(ValueError, match=r"train\.rec key \d+ cannot be used, nor can any of the 64 images"):
            list(islice(batches, 9))


@pytest.mark.parametrize("number", sorted(DAMAGE))
def test_of_images_that_were_asked_for_by_name_the_bad_ones_are_named(
    damaged: RecordSource, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    good = [sample for sample in range(COUNT) if sample not in DAMAGE]
    with pytest.raises(
        ValueError, match=rf"batch 1: 1 of 10 images cannot be used: .*train\.rec key {number + 1}: \w+"
    ):
        list(sequential_batches(damaged, FORM, [*good[:10], number, *good[:8], number, *good], batch=10))
    capfd.readouterr()  # DALI's decoders write to stderr as well


def test_substitutes_are_spread_evenly_and_are_others_in_every_epoch() -> None:
    drawn = np.stack([substitutes(epoch, sample, 10, seed=3) for epoch in range(20) for sample in range(50)])
    assert drawn.shape == (1000, MOST_SUBSTITUTES)
    counts = np.bincount(drawn.ravel(), minlength=10)
    assert (np.abs(counts - 6400) < 5 * np.sqrt(6400 * 0.9)).all()
    assert len({tuple(row) for row in drawn.tolist()}) == 1000
    assert substitutes(0, 0, 10, seed=3).tolist() != substitutes(0, 0, 10, seed=4).tolist()


def test_a_substitute_that_is_bad_too_gives_way_to_the_next() -> None:
    source = Contents([encoded(picture(0))] * 100)
    drawn = substitutes(2, 7, 100, seed=5).tolist()
    bad = {7, *drawn[:3]}
    for sample in bad:
        source.contents[sample] = b"?"
    expected = next(sample for sample in drawn if sample not in bad)
    bad_images = BadImages(source, seed=5, quarantine=[drawn[0]])
    found = bad_images.usable_images(np.array([2, 2]), np.array([7, expected]))
    assert found.samples.tolist() == [expected, expected]
    assert [image.tobytes() for image in found.encoded] == [source.contents[expected]] * 2
    assert found.replaced == 1


def test_a_set_that_is_out_of_reach_is_told_from_one_that_is_damaged() -> None:
    """The disk may come back: a scheduler then starts the run again."""
    away = BadImages(Contents([OSError(errno.EIO, "Input/output error")] * 100), seed=5)
    with pytest.raises(OSError, match="out of reach or mostly damaged") as error:
        away.usable_images(np.array([0]), np.array([1]))
    assert error.value.errno == errno.EIO
    with pytest.raises(ValueError, match="out of reach or mostly damaged"):
        BadImages(Contents([b"?"] * 100), seed=5).usable_images(np.array([0]), np.array([1]))


def test_whatever_a_source_raises_about_an_image_is_a_reason() -> None:
    source = Contents([FileNotFoundError(2, "it is\ngone"), ValueError("wrong magic"), b"", encoded(picture(0))])
    found = [image_or_problem(source, sample) for sample in range(4)]
    assert found[:3] == ["cannot be read: [Errno 2] it is gone", "cannot be read: wrong magic", "empty: zero bytes"]
    sound = found[3]
    assert not isinstance(sound, str)
    image, header = sound
    assert image.tobytes() == source.contents[3]
    assert header == ("PNG", WIDTH, HEIGHT)
    source.contents[0] = KeyError("a mistake of ours")
    with pytest.raises(KeyError):
        image_or_problem(source, 0)


def test_an_image_found_bad_is_not_read_again() -> None:
    source = Contents([b"?", encoded(picture(0))])
    bad_images = BadImages(source, seed=0)
    for _ in range(3):
        assert bad_images.usable_images(np.array([0]), np.array([0])).samples.tolist() == [1]
    assert source.asked.count(0) == 1


@pytest.mark.parametrize("listed", [[-1], [0, 2]])
def test_a_quarantine_of_samples_that_are_none_is_refused(listed: list[int]) -> None:
    with pytest.raises(ValueError, match=r"quarantined samples -?\d to -?\d: expected 0 to 1"):
        BadImages(Contents([b"", b""]), seed=0, quarantine=listed)


def test_images_are_asked_for_before_they_are_read(source_of_hints: HintedContents) -> None:
    batches = loader(source_of_hints, global_batch=300)  # type: ignore[arg-type]
    next(batches)
    batches._read_ahead._thread.shutdown()
    expected = [sample for step in range(1, 5) for sample in batches.plan(step).samples.tolist()]
    assert source_of_hints.hinted[: len(expected)] == expected


@pytest.fixture
def source_of_hints() -> HintedContents:
    return HintedContents([encoded(picture(0))] * 40)


def test_hints_reach_the_sets_that_others_are_made_of() -> None:
    parts = [HintedContents([encoded(picture(0))] * count) for count in (4, 3)]
    parts[0].num_classes = 2
    wrapped = NoisyLabels(JoinedSource([parts[0], Contents([b""] * 5), parts[1]]), 0.5, seed=0)
    wrapped.prefetch(np.array([11, 2, 9, 5, 0]))
    assert [part.hinted for part in parts] == [[2, 0], [2, 0]]


def test_a_record_file_takes_hints_even_about_what_it_has_lost(tmp_path: Path) -> None:
    source = record_source(tmp_path, [encoded(picture(number)) for number in range(4)])
    expected = [source.read(sample).tobytes() for sample in range(4)]
    source.prefetch(np.arange(4))
    assert [source.read(sample).tobytes() for sample in range(4)] == expected
    (tmp_path / "train.rec").write_bytes(b"")
    source.prefetch(np.arange(4))


def test_a_hint_that_fails_is_left_to_the_reading() -> None:
    ahead = ReadAhead(HintedContents([]))
    ahead.ask(np.array([5]))
    ahead._thread.shutdown()


class Contents(Source):
    """Encoded images in memory, of class 0, which remember who asked; an error stands for an image that raises it."""

    def __init__(self, contents: list[bytes | Exception]) -> None:
        self.contents, self.asked = contents, list[int]()
        self.labels = np.zeros(len(contents), np.int64)

    def read(self, sample: int) -> NDArray[np.uint8]:
        self.asked.append(sample)
        content = self.contents[sample]
        if isinstance(content, Exception):
            raise content
        return np.frombuffer(content, np.uint8)


class HintedContents(Contents):
    """Such images, which remember the hints too; a hint about an image that is none is an error."""

    def __init__(self, contents: list[bytes | Exception]) -> None:
        super().__init__(contents)
        self.hinted: list[int] = []

    def prefetch(self, samples: NDArray[np.int64]) -> None:
        self.hinted += [sample for sample in samples.tolist() if self.contents[sample] is not None]
