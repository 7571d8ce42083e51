"""Small pictures in a record file, each with a label of its own, and a loader of them: what its tests share."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.loader.image_loader import Batch, ImageFormat, ImageLoader

HEIGHT, WIDTH, COUNT, FIRST_LABEL = 24, 20, 30, 16_777_216 - 29
FORM = ImageFormat(HEIGHT, WIDTH)
EVERYTHING = Augmentation(mirror=0.5, rotate_degrees=20, scale=0.2, shear=0.1, translate=0.1)
CHANCES: dict[str, Any] = dict.fromkeys(
    ("warp", "crop", "colour", "grey", "blur", "low_resolution", "jpeg", "erase"), 0.4
)
EVERY_CHANGE = replace(EVERYTHING, **CHANCES)


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """A smooth picture without any symmetry, (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def record_source(folder: Path, images: list[bytes]) -> RecordSource:
    with RecordWriter(folder / "train.rec") as writer:
        for number, image in enumerate(images):
            writer.append(FIRST_LABEL + number, image)
    return RecordSource(folder / "train.rec")


def loader(
    source: RecordSource, form: ImageFormat = FORM, rank: int = 0, size: int = 1, **settings: object
) -> ImageLoader:
    defaults: dict[str, object] = {"global_batch": 7, "seed": 3}
    return ImageLoader(source, form, rank=rank, size=size, **{**defaults, **settings})  # type: ignore[arg-type]


def pixels(batch: Batch) -> NDArray[np.float64]:
    """(n, height, width, 3), 0 to 255."""
    return batch.images.permute(0, 2, 3, 1).double().numpy() * 127.5 + 127.5


def numbers(batch: Batch) -> NDArray[np.int64]:
    """Which picture each image was made from: `record_source` gives each a label of its own."""
    return batch.labels.numpy() - FIRST_LABEL
