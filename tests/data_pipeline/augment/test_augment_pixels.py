"""Each change of an image as DALI makes it, against its slow twin; and which images it is made on, in which order."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from augment_twin import (
    Levels,
    Pixels,
    blurred,
    coarsened,
    coloured,
    compressed,
    erased,
    greyed,
    resized,
    warped,
)
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.loader.image_loader import ImageFormat, ImageLoader, sequential_batches
from data_pipeline.source import Source

HEIGHT, WIDTH, COUNT, FILL = 40, 30, 24, 90
FORM = ImageFormat(HEIGHT, WIDTH, fill=FILL)
ROUNDING = 0.51  # DALI's last act is to round to whole levels; the rest of float32's error is far smaller


class Pictures(Source):
    """A source of smooth pictures without symmetry, held in memory."""

    def __init__(self, height: int = HEIGHT, width: int = WIDTH) -> None:
        self.labels = np.arange(COUNT)
        self.pictures: list[Pixels] = []
        for seed in range(COUNT):
            coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
            large = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            self.pictures.append(np.asarray(large))

    def read(self, sample: int) -> NDArray[np.uint8]:
        file = io.BytesIO()
        Image.fromarray(self.pictures[sample]).save(file, "PNG")
        return np.frombuffer(file.getvalue(), np.uint8)


@dataclass(frozen=True, eq=False)
class Made:
    """One image before and after, and its parameters."""

    before: Pixels
    after: Levels
    given: dict[str, NDArray[Any]]

    def numbers(self, *names: str) -> list[float]:
        return [float(self.given[name]) for name in names]

    def pair(self, name: str) -> tuple[int, int]:
        first, second = self.given[name]
        return int(first), int(second)


def made(augmentation: Augmentation, form: ImageFormat = FORM, source: Pictures | None = None) -> list[Made]:
    source = source or Pictures()
    batches = ImageLoader(source, form, global_batch=COUNT, rank=0, size=1, seed=3, augmentation=augmentation)
    order, batch = batches.plan(0), next(batches)
    levels = batch.images.permute(0, 2, 3, 1).double().cpu().numpy() * 127.5 + 127.5
    rows = [{name: column[row] for name, column in order.parameters.items()} for row in range(COUNT)]
    return [
        Made(source.pictures[sample], after, given)
        for sample, after, given in zip(order.samples, levels, rows, strict=True)
    ]


def furthest(images: list[Made], twin: Callable[[Made], Levels | Pixels]) -> float:
    """The largest distance from the twin in any value, in levels; what leaves 0 to 255 is cut, as bytes are."""
    return float(max(np.abs(image.after - np.clip(twin(image), 0, 255)).max() for image in images))


def test_colour_is_that_of_the_twin() -> None:
    images = made(Augmentation(colour=1.0, brightness=0.5, contrast=0.6, saturation=0.9, hue_degrees=120))
    names = "brightness", "contrast", "saturation", "hue_degrees"
    assert furthest(images, lambda image: coloured(image.before, *image.numbers(*names))) < ROUNDING
    assert furthest(images, lambda image: image.before) > 50


@pytest.mark.parametrize("factor", ["brightness", "contrast", "saturation"])
def test_a_factor_near_nought_leaves_black_middle_grey_or_luma(factor: str) -> None:
    """What the three factors mean, without the twin's matrices; at 0 itself they are not drawn."""
    strengths: dict[str, Any] = dict.fromkeys(("brightness", "contrast", "saturation", "hue_degrees"), 0.0)
    images = made(Augmentation(colour=1.0, **{**strengths, factor: 1.0}))
    image = min(images, key=lambda image: float(image.given[factor]))
    (left,) = image.numbers(factor)
    assert left < 0.15
    ends = {"brightness": np.zeros(3), "contrast": np.full(3, 128.0), "saturation": greyed(image.before)}
    assert np.abs(image.after - ends[factor] - left * (image.before - ends[factor])).max() < 2.0


def test_grey_is_luma_in_three_equal_channels() -> None:
    images = made(Augmentation(grey=1.0))
    assert furthest(images, lambda image: greyed(image.before)) < ROUNDING
    for image in images:
        assert np.ptp(image.after, axis=2).max() == 0


def test_blur_is_that_of_the_twin() -> None:
    images = made(Augmentation(blur=1.0, blur_pixels=3.0))
    assert furthest(images, lambda image: blurred(image.before, *image.numbers("blur_pixels"))) < ROUNDING
    assert furthest(images, lambda image: image.before) > 10


def test_low_resolution_is_that_of_the_twin() -> None:
    images = made(Augmentation(low_resolution=1.0, low_resolution_share=0.1))
    # The small image is whole levels too: a value near a half may be rounded the other way, which is one level there
    # and at most one here.
    assert furthest(images, lambda image: coarsened(image.before, *image.pair("low_resolution_size"))) < 1 + ROUNDING
    assert furthest(images, lambda image: image.before) > 30


def test_jpeg_is_that_of_pillow() -> None:
    images = made(Augmentation(jpeg=1.0, jpeg_quality=5))
    # Exact: both are libjpeg with its exact integer transform. One coefficient rounded otherwise would be many levels.
    assert furthest(images, lambda image: compressed(image.before, int(image.given["jpeg_quality"]))) < 1e-4
    assert furthest(images, lambda image: image.before) > 20


def test_an_erased_box_holds_the_fill_and_nothing_else_changes() -> None:
    images = made(Augmentation(erase=1.0, erase_area=0.3))
    twin = lambda image: erased(image.before, image.pair("erase_start"), image.pair("erase_size"), FILL)  # noqa: E731
    assert furthest(images, twin) < 1e-4


@pytest.mark.parametrize("form", [FORM, ImageFormat(24, 20), ImageFormat(70, 64)], ids=["same", "smaller", "larger"])
def test_crops_are_those_of_the_twin_and_resampled_once(form: ImageFormat) -> None:
    def twin(image: Made) -> Levels:
        (top, left), (bottom, right) = (image.given[name].astype(np.float64) for name in ("crop_start", "crop_end"))
        box = (top * HEIGHT, left * WIDTH), (bottom * HEIGHT, right * WIDTH)
        return resized(image.before.astype(np.float64), form.height, form.width, *box)

    assert furthest(made(Augmentation(crop=1.0, crop_area=0.2, crop_aspect=2.0), form), twin) < ROUNDING


def test_the_twin_resamples_as_pillow_does() -> None:
    """Inside; at the rim Pillow drops what lies outside, where DALI repeats the rim. Pillow rounds twice."""
    image = Pictures(60, 60).pictures[0]
    box = (12.3, 11.1, 50.2, 47.9)
    for size in (17, 90):
        found = resized(image.astype(np.float64), size, size, (box[1], box[0]), (box[3], box[2]))
        pillow = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box))
        assert np.abs(found - pillow).max() < 1.01


ALL_DRAWN = Augmentation(
    crop=0.5, mirror=0.5, warp=0.5, rotate_degrees=20, scale=0.1, shear=0.1, translate=0.1, colour=0.5, grey=0.3,
    blur=0.5, low_resolution=0.5, jpeg=0.5, erase=0.5,
)  # fmt: skip


def followed(image: Made) -> Levels:
    """The whole chain by its twins, whole levels after each step, only what this image drew."""
    given, now = image.given, image.before

    def whole(levels: Levels) -> Pixels:
        return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)

    if given["crop"]:
        start, end = (given[name].astype(np.float64) * [HEIGHT, WIDTH] for name in ("crop_start", "crop_end"))
        now = whole(resized(now.astype(np.float64), HEIGHT, WIDTH, (start[0], start[1]), (end[0], end[1])))
    if given["warp"]:
        now = whole(warped(now, given["matrix"], FILL))
    elif given["flip"]:
        now = now[:, ::-1].copy()
    if given["colour"]:
        now = whole(coloured(now, *image.numbers("brightness", "contrast", "saturation", "hue_degrees")))
    if given["grey"]:
        now = whole(greyed(now))
    if given["blur"]:
        now = whole(blurred(now, *image.numbers("blur_pixels")))
    if given["low_resolution"]:
        now = whole(coarsened(now, *image.pair("low_resolution_size")))
    if given["jpeg"]:
        now = whole(compressed(now, int(given["jpeg_quality"])))
    if given["erase"]:
        now = whole(erased(now, image.pair("erase_start"), image.pair("erase_size"), FILL))
    return now.astype(np.float64)


def test_all_together_are_the_chain_of_the_twins_on_those_that_drew_them() -> None:
    images = made(ALL_DRAWN)
    distances = np.array([np.abs(image.after - followed(image)).mean() for image in images])
    changes = np.array([np.abs(image.after - image.before).mean() for image in images])
    compressed_too = np.array([bool(image.given["jpeg"]) for image in images])
    # A value near a half may be rounded the other way at each step: a few levels of 3600. Where that moves a JPEG's
    # coefficient by one, its whole block of 64 moves by some levels.
    assert distances[~compressed_too].max() < 0.05
    assert distances[compressed_too].max() < 1.5
    assert np.median(distances[compressed_too]) < 0.05
    assert np.median(changes) > 10


def test_an_image_that_drew_nothing_stays_as_it_is() -> None:
    chances: dict[str, Any] = dict.fromkeys(
        ("crop", "warp", "colour", "grey", "blur", "low_resolution", "jpeg", "erase"), 0.15
    )
    images = made(Augmentation(rotate_degrees=20, **chances))
    untouched = [image for image in images if not any(image.given[name] for name in chances)]
    assert 2 < len(untouched) < COUNT - 2
    assert furthest(untouched, lambda image: image.before) < 1e-4


def test_a_change_so_rare_that_no_image_of_a_batch_drew_it_alters_nothing() -> None:
    images = made(Augmentation(blur=1e-9, jpeg=1e-9, crop=1e-9))
    assert furthest(images, lambda image: image.before) < 1e-4


def test_nothing_switched_on_gives_the_plain_pixels_bitwise() -> None:
    source = Pictures()
    (plain,) = sequential_batches(source, FORM, range(COUNT), batch=COUNT)
    batch = next(ImageLoader(source, FORM, global_batch=COUNT, rank=0, size=1, seed=3, augmentation=Augmentation()))
    assert torch.equal(batch.images, plain.images[batch.labels])
    mirrored = ImageLoader(
        source, FORM, global_batch=COUNT, rank=0, size=1, seed=3, augmentation=Augmentation(mirror=0.5)
    )
    flips = torch.from_numpy(mirrored.plan(0).parameters["flip"]).bool()
    found, originals = next(mirrored).images, plain.images[batch.labels]
    assert torch.equal(found, torch.where(flips[:, None, None, None], originals.flip(3), originals))


def test_changes_are_the_same_in_every_layout_and_precision() -> None:
    plain = [image.after for image in made(ALL_DRAWN)]
    for form in (
        ImageFormat(HEIGHT, WIDTH, fill=FILL, channels_last=True),
        ImageFormat(HEIGHT, WIDTH, fill=FILL, dtype=torch.float16),
    ):
        found = [image.after for image in made(ALL_DRAWN, form)]
        half_a_step = 0.13 if form.dtype == torch.float16 else 0.0  # of float16 at 1, in levels
        assert np.abs(np.stack(found) - np.stack(plain)).max() <= half_a_step


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "name", ["mirror", "crop", "warp", "colour", "grey", "blur", "low_resolution", "jpeg", "erase"]
)
def test_a_gpu_makes_the_same_change(name: str) -> None:
    """To a level or so, as its kernels round in another order; its JPEG is an imitation of one (6.5 on an H100)."""
    chance: dict[str, Any] = {name: 0.5, **({"rotate_degrees": 20} if name == "warp" else {})}
    cpu, gpu = (made(Augmentation(**chance), ImageFormat(HEIGHT, WIDTH, device, fill=FILL)) for device in ("cpu", 0))
    for expected, found in zip(cpu, gpu, strict=True):
        assert np.abs(expected.after - found.after).mean() < (8.0 if name == "jpeg" else 0.6)
