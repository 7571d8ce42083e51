"""Who brings the images: our loader, its graph alone under each of DALI's executors, DataLoader with two decoders.

All make the same batches of the same samples, mirrored alike: read, decode, mirror, normalise to float32
(n, 3, side, side) in channels-last order, as the trainer's backbones take them. A contender is a call that gives a
number of batches and has ended all its workers at the last one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.dlpack import from_dlpack

from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.augment.draws import Draws
from data_pipeline.augment.geometry import geometry_parameters
from data_pipeline.loader.dali_graph import ImageFormat, normalised, pipeline, tensors
from data_pipeline.loader.image_loader import BATCHES_AHEAD, Batch, BatchPlan, ImageLoader
from data_pipeline.order.shuffled import rank_positions, samples_at
from data_pipeline.source import Source

MIRROR = Augmentation(mirror=0.5)
HALF_RANGE = 127.5
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Task:
    """What is to be loaded, and by how many threads or worker processes."""

    source: Source
    side: int
    batch: int
    workers: int
    seed: int = 0

    @property
    def form(self) -> ImageFormat:
        """What every image becomes."""
        return ImageFormat(self.side, self.side, channels_last=True)

    def order(self, step: int) -> BatchPlan:
        """The samples of a batch, and which of them are mirrored."""
        epochs, samples = samples_at(rank_positions(step, self.batch, 0, 1), len(self.source), self.seed)
        return BatchPlan(samples, geometry_parameters(MIRROR, Draws(epochs, samples, self.seed), self.side, self.side))


Contender = Callable[[Task, int], Iterator[Batch]]


def contenders() -> dict[str, Contender]:
    """All that can run here, by the name that the tables show."""
    found: dict[str, Contender] = {
        "ImageLoader": image_loader,
        "its DALI graph alone, exec_dynamic=True": partial(dali_graph, exec_dynamic=True),
        "its DALI graph alone, exec_dynamic=False": partial(dali_graph, exec_dynamic=False),
        "DataLoader + Pillow": partial(data_loader, pixels=pillow_pixels),
    }
    if find_spec("cv2"):
        found["DataLoader + OpenCV"] = partial(data_loader, pixels=opencv_pixels)
    return found


def image_loader(task: Task, count: int) -> Iterator[Batch]:
    """Ours."""
    sizes: dict[str, Any] = {"global_batch": task.batch, "rank": 0, "size": 1, "seed": task.seed}
    loader = ImageLoader(task.source, task.form, **sizes, augmentation=MIRROR, num_threads=task.workers)
    yield from islice(loader, count)


def dali_graph(task: Task, count: int, *, exec_dynamic: bool) -> Iterator[Batch]:
    """Our graph, without the loader's checks and reading ahead.

    The dynamic executor gives each batch of bytes memory of its own; the static one writes the next batch over the
    last. Normalised, both have memory of their own.
    """
    is_other_size = np.zeros(task.batch, np.bool_)

    def columns(info: Any) -> list[Any]:
        order = task.order(info.iteration)
        images = tensors([task.source.read(sample) for sample in order.samples.tolist()])
        return [images, is_other_size, *order.parameters.values()]

    graph = pipeline(
        columns,
        task.form,
        task.order(0).parameters,
        batch_size=task.batch,
        num_threads=task.workers,
        device_id=None,
        prefetch_queue_depth=BATCHES_AHEAD,
        exec_dynamic=exec_dynamic,
    )
    for step in range(count):
        images = normalised(from_dlpack(graph.run()[0].as_tensor()), task.form)
        labels = torch.from_numpy(task.source.labels[task.order(step).samples])
        yield Batch(images, labels)


def data_loader(task: Task, count: int, pixels: Callable[[NDArray[np.uint8], bool], Pixels]) -> Iterator[Batch]:
    """torch's, an image at a time in worker processes, as most training scripts have it. No workers: in this process.

    Workers are forked, as on Linux by default up to Python 3.13: spawned ones take 2.5 s of CPU each to start.
    """
    orders = (task.order(step) for step in range(count))
    steps = [list(zip(order.samples.tolist(), order.parameters["flip"].tolist(), strict=True)) for order in orders]
    forked: dict[str, Any] = {"num_workers": task.workers, "multiprocessing_context": "fork"} if task.workers else {}
    for images, labels in DataLoader(_Decoded(task.source, pixels), batch_sampler=steps, **forked):
        yield Batch(images.permute(0, 3, 1, 2), labels)


class _Decoded(Dataset[tuple[Tensor, int]]):
    """One image of a source, by its sample and whether it is mirrored."""

    def __init__(self, source: Source, pixels: Callable[[NDArray[np.uint8], bool], Pixels]) -> None:
        self.source, self.pixels = source, pixels

    def __getitem__(self, chosen: tuple[int, bool]) -> tuple[Tensor, int]:
        sample, is_mirrored = chosen
        image = torch.from_numpy(self.pixels(self.source.read(sample), is_mirrored))
        return image.float().sub_(HALF_RANGE).div_(HALF_RANGE), self.source.label(sample)


def pillow_pixels(encoded: NDArray[np.uint8], is_mirrored: bool) -> Pixels:
    """(side, side, 3), RGB, by Pillow."""
    image: Image.Image = Image.open(io.BytesIO(encoded.tobytes())).convert("RGB")
    return np.array(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if is_mirrored else image)


def opencv_pixels(encoded: NDArray[np.uint8], is_mirrored: bool) -> Pixels:
    """(side, side, 3), RGB, by OpenCV, on the one thread that a worker process has."""
    import cv2

    cv2.setNumThreads(0)
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return np.asarray(cv2.flip(image, 1) if is_mirrored else image, np.uint8)
