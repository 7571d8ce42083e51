import io
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from augment_twin import warped
from nvidia.dali import fn
from nvidia.dali.pipeline import Pipeline
from pictures import (
    COUNT,
    EVERY_CHANGE,
    EVERYTHING,
    FIRST_LABEL,
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
from PIL import Image

from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.images.headers import ImageHeader
from data_pipeline.loader.dali_graph import float_images, normalised
from data_pipeline.loader.decoded_batches import DecodedBatches
from data_pipeline.loader.feed import BatchPlan, EncodedBatch
from data_pipeline.loader.image_loader import Batch, ImageFormat, sequential_batches


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> RecordSource:
    return record_source(tmp_path_factory.mktemp("records"), [encoded(picture(number)) for number in range(COUNT)])


def test_images_and_labels_arrive_exactly(source: RecordSource) -> None:
    batch = next(loader(source))
    assert batch.images.dtype == torch.float32
    assert batch.labels.dtype == torch.int64
    assert batch.images.shape == (7, 3, HEIGHT, WIDTH)
    originals = np.stack([picture(number) for number in numbers(batch)])
    expected = (torch.from_numpy(originals).permute(0, 3, 1, 2).float() - 127.5) / 127.5
    torch.testing.assert_close(batch.images, expected, rtol=0, atol=2e-7)


def test_labels_beyond_float32_are_exact(tmp_path: Path) -> None:
    large = record_source(tmp_path, [encoded(picture(number)) for number in range(4)])
    large.labels += 2**40
    (batch,) = sequential_batches(large, FORM, range(4), batch=4)
    assert batch.labels.tolist() == [FIRST_LABEL + 2**40 + number for number in range(4)]


def test_every_epoch_shows_every_sample_once(source: RecordSource) -> None:
    seen = torch.cat([batch.labels for batch in islice(loader(source, global_batch=10), 6)]).reshape(2, COUNT)
    for epoch in seen:
        assert sorted(epoch.tolist()) == [FIRST_LABEL + number for number in range(COUNT)]
    assert seen[0].tolist() != seen[1].tolist()


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize(
    "augmentation",
    [None, Augmentation(mirror=0.5), EVERYTHING, EVERY_CHANGE],
    ids=["none", "mirror", "every move", "every change"],
)
def test_any_number_of_ranks_makes_the_same_tensors(
    source: RecordSource, size: int, augmentation: Augmentation | None
) -> None:
    alone = loader(source, augmentation=augmentation)
    ranks = [loader(source, rank=rank, size=size, augmentation=augmentation) for rank in range(size)]
    for whole, *parts in islice(zip(alone, *ranks, strict=True), 6):
        assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
        assert torch.equal(whole.labels, torch.cat([part.labels for part in parts]))


@pytest.mark.parametrize("augmentation", [EVERYTHING, EVERY_CHANGE], ids=["every move", "every change"])
def test_a_resumed_loader_goes_on_bitwise(source: RecordSource, augmentation: Augmentation) -> None:
    straight = list(islice(loader(source, augmentation=augmentation), 9))
    first = loader(source, augmentation=augmentation)
    for _ in range(4):
        next(first)
    assert first.step == 4
    resumed = loader(source, augmentation=augmentation, start_step=first.step)
    for batch in straight[4:]:
        found = next(resumed)
        assert torch.equal(found.images, batch.images)
        assert torch.equal(found.labels, batch.labels)


def test_a_batch_kept_is_not_overwritten_by_later_ones(source: RecordSource) -> None:
    batches = loader(source, augmentation=EVERYTHING)
    kept = [next(batches) for _ in range(8)]
    copies = [(batch.images.clone(), batch.labels.clone()) for batch in kept]
    for _ in range(8):
        next(batches)
    assert len({batch.images.data_ptr() for batch in kept}) == len(kept)
    for batch, (images, labels) in zip(kept, copies, strict=True):
        assert torch.equal(batch.images, images)
        assert torch.equal(batch.labels, labels)


@pytest.mark.parametrize("fill", [0, 127, 255])
def test_warped_pixels_are_those_of_the_slow_twin(source: RecordSource, fill: int) -> None:
    batches = loader(source, ImageFormat(HEIGHT, WIDTH, fill=fill), augmentation=EVERYTHING)
    matrices = batches.plan(0).parameters["matrix"]
    batch = next(batches)
    for found, number, matrix in zip(pixels(batch), numbers(batch), matrices, strict=True):
        assert np.abs(found - warped(picture(number), matrix, fill)).max() < 0.51  # DALI rounds to whole levels


@pytest.mark.parametrize("augmentation", [Augmentation(mirror=1.0), Augmentation(mirror=1.0, translate=1e-9)])
def test_mirror_images_are_exact_with_and_without_a_warp(source: RecordSource, augmentation: Augmentation) -> None:
    batch = next(loader(source, augmentation=augmentation))
    originals = np.stack([picture(number) for number in numbers(batch)])
    np.testing.assert_allclose(pixels(batch), originals[:, :, ::-1], atol=1e-4)


@pytest.mark.parametrize("grey", [0.0, 1e-12], ids=["mirrored by torch", "mirrored by DALI"])
def test_mirror_flags_are_those_of_the_order(source: RecordSource, grey: float) -> None:
    batches = loader(source, augmentation=Augmentation(mirror=0.5, grey=grey), global_batch=COUNT)
    flips = batches.plan(0).parameters["flip"]
    assert 5 < flips.sum() < 25
    batch = next(batches)
    for found, number, flip in zip(pixels(batch), numbers(batch), flips, strict=True):
        np.testing.assert_allclose(found, picture(number)[:, :: -1 if flip else 1], atol=1e-4)


@pytest.mark.parametrize("channels_last", [False, True])
def test_torch_normalises_every_byte_as_the_graph_does_on_a_gpu(channels_last: bool) -> None:
    levels = np.arange(256 * 3, dtype=np.uint8).reshape(2, 8, 16, 3)
    with Pipeline(2, num_threads=1, device_id=None) as graph:  # type: ignore[no-untyped-call]
        graph.set_outputs(float_images(fn.external_source(source=lambda: levels, batch=True, layout="HWC")))
    expected = torch.from_numpy(np.array(graph.run()[0].as_tensor())).permute(0, 3, 1, 2)
    found = normalised(torch.from_numpy(levels), ImageFormat(8, 16, channels_last=channels_last))
    assert torch.equal(found, expected)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert found.is_contiguous(memory_format=layout)


def test_only_images_of_another_size_are_resized(tmp_path: Path) -> None:
    large = picture(1, 2 * HEIGHT, 2 * WIDTH)
    mixed = record_source(tmp_path, [encoded(picture(0)), encoded(large), encoded(picture(2))])
    (batch,) = sequential_batches(mixed, FORM, range(3), batch=3)
    found = pixels(batch)
    np.testing.assert_allclose(found[[0, 2]], [picture(0), picture(2)], atol=1e-4)
    pillow = np.asarray(Image.fromarray(large).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    assert np.abs(found[1] - pillow).max() <= 1.01


def test_an_image_that_is_not_as_large_as_its_header_says_is_marked_bad() -> None:
    """No file is known whose header fools us and not DALI; a batch of two sizes would end the training."""
    side, marked = 16, dict[int, str]()
    right, wrong = (np.frombuffer(encoded(picture(0, each, each)), np.uint8) for each in (side, 2 * side))

    class Lying:
        def encoded(self, step: int) -> EncodedBatch:
            images = [right, right if 1 in marked else wrong, right]
            return EncodedBatch(BatchPlan(np.arange(3)), images, [ImageHeader("PNG", side, side)] * 3)

        def mark_bad(self, step: int, problems: dict[int, str]) -> None:
            marked.update(problems)

    batches = DecodedBatches(ImageFormat(side, side), np.arange(3), Lying(), 0, num_threads=1)
    assert next(batches).images.shape == (3, 3, side, side)
    assert marked == {1: f"false header: {wrong.size:,} bytes, first 89504e47"}


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (30, 30)])
def test_an_image_that_lies_on_its_side_is_set_upright(tmp_path: Path, size: tuple[int, int]) -> None:
    lying, exif = picture(1, size[1], size[0]), Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise sets it upright
    file = io.BytesIO()
    Image.fromarray(lying).save(file, "JPEG", quality=95, exif=exif)
    records = record_source(tmp_path, [file.getvalue()])
    (batch,) = sequential_batches(records, ImageFormat(*size), [0], batch=1)
    assert np.abs(pixels(batch)[0] - np.rot90(np.asarray(Image.open(file)), -1)).max() < 1.01


def test_jpeg_pixels_are_those_of_pillow(tmp_path: Path) -> None:
    files = [encoded(picture(number, 40, 40), "JPEG") for number in range(20)]
    (batch,) = sequential_batches(record_source(tmp_path, files), ImageFormat(40, 40), range(20), batch=20)
    pillow = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    assert np.abs(pixels(batch) - pillow).max() < 1.01


def test_grey_images_become_three_equal_channels(tmp_path: Path) -> None:
    file = encoded(picture(0)[:, :, 0])
    (batch,) = sequential_batches(record_source(tmp_path, [file]), FORM, [0], batch=1)
    np.testing.assert_allclose(pixels(batch)[0], np.repeat(picture(0)[:, :, :1], 3, axis=2), atol=1e-4)


def test_channels_last_and_half_precision_hold_the_same_pixels(source: RecordSource) -> None:
    plain = next(loader(source, augmentation=EVERYTHING))
    last = next(loader(source, ImageFormat(HEIGHT, WIDTH, channels_last=True), augmentation=EVERYTHING))
    assert last.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last.images, plain.images)
    half = next(loader(source, ImageFormat(HEIGHT, WIDTH, dtype=torch.float16), augmentation=EVERYTHING))
    assert torch.equal(half.images, plain.images.half())


@pytest.mark.parametrize(
    ("samples", "sizes"), [(range(3, 20), [7, 7, 3]), ([5, 1, 1], [3]), ([], []), (range(14), [7, 7])]
)
def test_sequential_batches_keep_the_order_and_the_short_end(
    source: RecordSource, samples: list[int], sizes: list[int]
) -> None:
    reader = sequential_batches(source, FORM, samples, batch=7)
    batches = list(reader)
    assert [len(batch.images) for batch in batches] == sizes
    assert [label for batch in batches for label in numbers(batch).tolist()] == list(samples)
    for batch in batches:
        np.testing.assert_allclose(pixels(batch), np.stack([picture(n) for n in numbers(batch)]), atol=1e-4)
    assert list(reader) == []


def test_errors_of_the_source_arrive_as_they_are(tmp_path: Path) -> None:
    cut = record_source(tmp_path, [encoded(picture(number)) for number in range(COUNT)])
    with (tmp_path / "train.rec").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(ValueError, match=r"train\.rec: .* bytes at byte \d+ reach past its end: the file was cut"):
        list(sequential_batches(cut, FORM, range(COUNT), batch=7))


def test_decoding_goes_on_while_the_caller_works(tmp_path: Path) -> None:
    slow = record_source(tmp_path, [encoded(picture(number, 400, 400), "JPEG") for number in range(8)])

    def seconds(work: Callable[[], None]) -> float:
        batches: Iterator[Batch] = loader(slow, ImageFormat(400, 400), augmentation=EVERYTHING, global_batch=4)
        next(batches)
        waited = []
        for _ in range(3):
            work()
            start = time.perf_counter()
            next(batches)
            waited.append(time.perf_counter() - start)
        return min(waited)

    alone = seconds(lambda: None)
    with_work = (seconds(lambda: time.sleep(3 * alone)) for _ in range(4))  # a busy machine may be late once
    assert any(waited < alone / 2 for waited in with_work)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda source: loader(source, size=8, rank=1),
            "a global batch of 7 images leaves some of 8 ranks without any",
        ),
        (lambda source: ImageFormat(0, 5), "images of 0 x 5 pixels"),
        (lambda source: ImageFormat(5, 5, dtype=torch.int8), "dtype torch.int8: expected one of torch.float32"),
        (lambda source: ImageFormat(5, 5, fill=127.5), "fill 127.5: expected a whole pixel value, 0 to 255"),
        (lambda source: ImageFormat(5, 5, fill=256), "fill 256: expected"),
        (lambda source: ImageFormat(5, 5, device="cuda"), "device 'cuda': expected"),
        (lambda source: sequential_batches(source, FORM, [0], batch=0), "batches of 0 images"),
    ],
)
def test_impossible_requests_are_refused(
    source: RecordSource, call: Callable[[RecordSource], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(source)


def test_another_reader_of_the_format_finds_the_same_bytes(tmp_path: Path) -> None:
    """DALI has a RecordIO reader of its own: an independent witness for the files we write, split records included."""
    magic = bytes.fromhex("0a23d7ce")
    images = [b"plain", magic, b"head" + magic + magic + b"tail!", b"a" + magic + b"bcd" + magic, magic * 3 + b"z"]
    with RecordWriter(tmp_path / "train.rec") as writer:
        for label, image in enumerate(images):
            writer.append(label % 2, image)
    with Pipeline(len(images), num_threads=1, device_id=None) as pipeline:  # type: ignore[no-untyped-call]
        pipeline.set_outputs(*fn.readers.mxnet(path=f"{tmp_path}/train.rec", index_path=f"{tmp_path}/train.idx"))
    found, labels = pipeline.run()
    assert [found.at(number).tobytes() for number in range(len(images))] == images
    assert np.asarray(labels.as_tensor()).ravel().tolist() == [0, 1, 0, 1, 0]
