"""Batches out of DALI; a batch is asked for again when an image turns out to be one that DALI cannot decode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from data_pipeline.loader.bad_images import undecodable_places
from data_pipeline.loader.dali_graph import ImageFormat, is_mirrored_by_torch, mirror, normalised
from data_pipeline.loader.feed import EncodedBatch, Feed, InFlight, started_pipeline


@dataclass(frozen=True, eq=False)
class Batch:
    """Images (n, 3, height, width) and their classes (n,), int64, on one device; no later batch overwrites them."""

    images: Tensor
    labels: Tensor
    replaced: int = 0
    """How many of the images stand for one that was found bad."""


class DecodedBatches:
    """The batches of a feed from step `first` on, up to the last one; none is larger than the first.

    The feed is told of the images of a batch that DALI cannot decode; unless it raises, the batch is asked for again,
    by a new pipeline.
    """

    def __init__(self, form: ImageFormat, labels: NDArray[np.int64], feed: Feed, first: int, num_threads: int) -> None:
        self._form, self._labels, self._feed = form, labels, feed
        self._num_threads, self.step = num_threads, first
        self._failure: Exception | None = None
        self.start_pipeline()

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
        encoded = self._in_flight.handed_out(self.step)
        self.step += 1
        if is_mirrored_by_torch(encoded.plan.parameters, self._form):
            mirror(pixels, encoded.plan.parameters["flip"])
        images = normalised(pixels, self._form)
        # Labels go past DALI, where each would cost up to 12 us.
        labels = torch.from_numpy(self._labels[encoded.plan.samples])
        return Batch(images, _on_device(labels, images.device), encoded.replaced)

    def start_pipeline(self) -> None:
        """Starts a pipeline whose first batch is that of this step, and drops what an earlier one made ahead."""
        self._in_flight = InFlight(self._feed, self._form, self.step)
        self._pipeline = started_pipeline(self._in_flight, self._num_threads)

    def _decoded(self) -> Any:
        """What DALI makes of this step's batch, once the feed has replaced all images that DALI cannot decode."""
        while True:
            try:
                images = self._pipeline.run()[0]
                kind, bad = "false header", _wrong_size(images.shape(), self._form)
                if not bad:
                    return images
            except RuntimeError:  # DALI says that an image of the batch is bad, but mostly not which
                given = self._in_flight.given(self.step)
                kind, bad = "cannot be decoded", undecodable_places(given.images, self._form) if given else []
                if not bad:
                    raise
            self._feed.mark_bad(self.step, _problems(self._in_flight.handed_out(self.step), bad, kind))
            self.start_pipeline()


def _on_device(labels: Tensor, device: torch.device) -> Tensor:
    """`labels` on `device`. Memory that is not pinned would make the host wait for all the work that a GPU has."""
    return labels if device.type == "cpu" else labels.pin_memory().to(device, non_blocking=True)


def _wrong_size(shapes: list[tuple[int, ...]], form: ImageFormat) -> list[int]:
    """The places of the images whose header named the wanted size, so that they were not resized, and lied."""
    return [place for place, shape in enumerate(shapes) if shape != (form.height, form.width, 3)]


def _problems(encoded: EncodedBatch, bad: list[int], kind: str) -> dict[int, str]:
    """What is wrong with the images at some places of a batch, by sample."""
    return {int(encoded.plan.samples[place]): f"{kind}: {_described(encoded.images[place])}" for place in bad}


def _described(image: NDArray[np.uint8]) -> str:
    return f"{image.size:,} bytes, first {image[:4].tobytes().hex()}"
