"""Batches out of a DALI pipeline, which is made anew where an image turns out to be one that it cannot decode."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from data_pipeline.augment.draws import Columns
from data_pipeline.images.headers import ImageHeader
from data_pipeline.loader.dali_graph import (
    CPU,
    ImageFormat,
    graph_columns,
    is_mirrored_by_torch,
    mirror,
    normalised,
    pipeline,
    tensors,
)

BATCHES_AHEAD = 2  # decoded while the model works on another
SOUND = np.frombuffer(b"P6 1 1 255\n\0\0\0", np.uint8)  # a black pixel
ANY_SIZE = ImageHeader("", 0, 0)


@dataclass(frozen=True, eq=False)
class Batch:
    """Images (n, 3, height, width) and their classes (n,), int64, on one device; no later batch overwrites them."""

    images: Tensor
    labels: Tensor
    replaced: int = 0
    """How many of the images stand for one that was found bad."""


@dataclass(frozen=True, eq=False)
class Order:
    """Which images make a batch, (n,), and how each is changed: columns (n, ...), the same ones in every batch."""

    samples: NDArray[np.int64]
    columns: Columns = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Encoded:
    """What DALI is given for a batch: the bytes of its images, and what their headers say."""

    order: Order
    images: list[NDArray[np.uint8]]
    headers: list[ImageHeader]
    replaced: int = 0


class DecodedBatches:
    """The batches of `contents(first)`, `contents(first + 1)`, ... up to the first None; none is larger than the first.

    Of a batch that DALI refuses, `condemn` is told the number and the undecodable samples with the reason; unless it
    raises, the same batch is asked for again.
    """

    def __init__(
        self,
        form: ImageFormat,
        labels: NDArray[np.int64],
        contents: Callable[[int], Encoded | None],
        condemn: Callable[[int, dict[int, str]], None],
        first: int,
        num_threads: int,
    ) -> None:
        self._form, self._labels, self._contents, self._condemn = form, labels, contents, condemn
        self._num_threads, self.number = num_threads, first
        self._failure: Exception | None = None
        self._begin()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._failure:
            raise self._failure
        try:
            decoded = self._decoded()
        except StopIteration:
            raise
        except Exception as error:
            self._failure = error
            raise
        # No copy: DALI's dynamic executor gives each batch memory of its own, kept for as long as the tensor lives
        # (test_a_batch_kept_is_not_overwritten_by_later_ones).
        pixels = from_dlpack(decoded.as_tensor())
        given = self._given.pop(self.number)
        self.number += 1
        if is_mirrored_by_torch(given.order.columns, self._form):
            mirror(pixels, given.order.columns["flip"])
        images = normalised(pixels, self._form)
        # Labels go past DALI, where each would cost up to 12 us.
        labels = torch.from_numpy(self._labels[given.order.samples]).to(images.device)
        return Batch(images, labels, given.replaced)

    def _begin(self) -> None:
        """Starts a pipeline whose first batch is the next one."""
        self._given: dict[int, Encoded] = {}  # to DALI, and not handed out yet
        start, given, contents = self.number, self._given, self._contents

        def handed(iteration: int) -> Encoded | None:
            encoded = given.get(start + iteration) or contents(start + iteration)
            if encoded is not None:
                given[start + iteration] = encoded
            return encoded

        example = handed(0)
        assert example is not None
        self._pipeline = _pipeline_of(handed, example.order, self._form, self._num_threads)

    def _decoded(self) -> Any:
        """What DALI makes of the next batch, begun anew where images that it cannot decode were found and condemned."""
        while True:
            try:
                images = self._pipeline.run()[0]
                kind, bad = "false header", _misfits(images.shape(), self._form)
                if not bad:
                    return images
            except RuntimeError:  # DALI says that an image of the batch is bad, but mostly not which
                encoded = self._given.get(self.number)
                kind, bad = "cannot be decoded", _undecodable(encoded.images, self._form) if encoded else []
                if not bad:
                    raise
            given = self._given[self.number]
            reasons = {int(given.order.samples[place]): f"{kind}: {_look(given.images[place])}" for place in bad}
            self._condemn(self.number, reasons)
            self._begin()


def _pipeline_of(
    handed: Callable[[int], Encoded | None],
    example: Order,
    form: ImageFormat,
    num_threads: int,
) -> Any:
    """A DALI pipeline that decodes `handed(0)`, `handed(1)`, ..., asking for each from the thread that runs it."""

    def columns(batch: Any) -> list[Any]:
        encoded = handed(batch.iteration)
        if encoded is None:
            raise StopIteration
        is_other_size = form.is_other_size(encoded.headers)
        return [tensors(encoded.images), is_other_size, *graph_columns(encoded.order.columns, form).values()]

    return pipeline(
        columns,
        form,
        graph_columns(example.columns, form),
        batch_size=len(example.samples),
        num_threads=num_threads,
        device_id=None if form.device == CPU else form.device,
        prefetch_queue_depth=BATCHES_AHEAD,
        exec_dynamic=True,
    )


def _undecodable(images: list[NDArray[np.uint8]], form: ImageFormat) -> list[int]:
    """The places of the images that do not decode by themselves; none where nothing does, for want of memory, say.

    A millisecond or so for each image, and a pipeline for each one found.
    """
    bad, first = list[int](), 0
    if not _decodable([SOUND], form):
        return []
    while first < len(images):
        place = first + _decodable(images[first:], form)
        if place < len(images):
            bad.append(place)
        first = place + 1
    return bad


def _decodable(images: list[NDArray[np.uint8]], form: ImageFormat) -> int:
    """How many images decode, one after another, up to the first that does not: a pipeline that failed is no use."""
    one = Order(np.zeros(1, np.int64))

    def handed(number: int) -> Encoded | None:
        return Encoded(one, [images[number]], [ANY_SIZE]) if number < len(images) else None

    alone, count = _pipeline_of(handed, one, form, num_threads=1), 0
    with suppress(RuntimeError):
        while count < len(images):
            alone.run()
            count += 1
    return count


def _misfits(shapes: list[tuple[int, ...]], form: ImageFormat) -> list[int]:
    """The places of the images whose header named the wanted size, so that they were not resized, and lied."""
    return [place for place, shape in enumerate(shapes) if shape != (form.height, form.width, 3)]


def _look(encoded: NDArray[np.uint8]) -> str:
    return f"{encoded.size:,} bytes, first {encoded[:4].tobytes().hex()}"
