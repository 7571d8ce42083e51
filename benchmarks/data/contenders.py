"""Who brings the images: our loader, and torch's DataLoader with Pillow.

Both make the same batches of the same samples, mirrored alike: read, decode, mirror, normalise to float32
(n, 3, side, side) in channels-last order, as the trainer's backbones take them. A contender is a call that gives a
number of batches and has ended all its workers at the last one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.augment.draws import Draws
from data_pipeline.augment.geometry import geometry_parameters
from data_pipeline.loader.dali_graph import ImageFormat
from data_pipeline.loader.image_loader import Batch, BatchPlan, ImageLoader
from data_pipeline.order.shuffled import rank_positions, samples_at
from data_pipeline.source import Source

MIRROR = Augmentation(mirror=0.5)
HALF_RANGE = 127.5


@dataclass(frozen=True)
class Task:
    """What is to be loaded, and by how many threads or worker processes."""

    source: Source
    side: int
    batch: int
    workers: int
    seed: int = 0

    def order(self, step: int) -> BatchPlan:
        """The samples of a batch, and which of them are mirrored."""
        epochs, samples = samples_at(rank_positions(step, self.batch, 0, 1), len(self.source), self.seed)
        return BatchPlan(samples, geometry_parameters(MIRROR, Draws(epochs, samples, self.seed), self.side, self.side))


def image_loader(task: Task, count: int) -> Iterator[Batch]:
    """Ours."""
    form = ImageFormat(task.side, task.side, channels_last=True)
    sizes: dict[str, Any] = {"global_batch": task.batch, "rank": 0, "size": 1, "seed": task.seed}
    yield from islice(ImageLoader(task.source, form, **sizes, augmentation=MIRROR, num_threads=task.workers), count)


def data_loader(task: Task, count: int) -> Iterator[Batch]:
    """torch's, an image at a time in worker processes, as most training scripts have it. No workers: in this process.

    Workers are forked, as on Linux by default up to Python 3.13: spawned ones take 2.5 s of CPU each to start.
    """
    orders = (task.order(step) for step in range(count))
    steps = [list(zip(order.samples.tolist(), order.parameters["flip"].tolist(), strict=True)) for order in orders]
    forked: dict[str, Any] = {"num_workers": task.workers, "multiprocessing_context": "fork"} if task.workers else {}
    for images, labels in DataLoader(_Decoded(task.source), batch_sampler=steps, **forked):
        yield Batch(images.permute(0, 3, 1, 2), labels)


class _Decoded(Dataset[tuple[Tensor, int]]):
    """One image of a source, by its sample and whether it is mirrored."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, chosen: tuple[int, bool]) -> tuple[Tensor, int]:
        sample, is_mirrored = chosen
        image = torch.from_numpy(pillow_pixels(self.source.read(sample), is_mirrored))
        return image.float().sub_(HALF_RANGE).div_(HALF_RANGE), self.source.label(sample)


def pillow_pixels(encoded: NDArray[np.uint8], is_mirrored: bool) -> NDArray[np.uint8]:
    """(side, side, 3), RGB, by Pillow."""
    image: Image.Image = Image.open(io.BytesIO(encoded.tobytes())).convert("RGB")
    return np.array(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if is_mirrored else image)


OURS = "ImageLoader"
Contender = Callable[[Task, int], Iterator[Batch]]
CONTENDERS: dict[str, Contender] = {OURS: image_loader, "DataLoader + Pillow": data_loader}
