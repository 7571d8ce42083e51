"""Decoded, augmented, normalised batches, by DALI.

DALI decodes in threads of its own while the model trains. Which images it decodes, and how they are changed, it is told
batch by batch from `order` and the `augment` files, so it holds no state: a run goes on from one integer, the step.
Labels travel beside the images as int64.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali.pipeline import Pipeline
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from data_pipeline import NamedSource, Source
from data_pipeline.augment import Augmentation
from data_pipeline.augment_draws import Columns, Draws
from data_pipeline.augment_geometry import geometry_columns
from data_pipeline.augment_pixels import pixel_columns
from data_pipeline.dali_graph import CPU, ImageFormat, pipeline
from data_pipeline.order import rank_positions, samples_at

__all__ = ["Batch", "ImageFormat", "ImageLoader", "Order", "sequential_batches"]

BATCHES_AHEAD = 2  # decoded while the model works on another
MOST_NAMED = 8  # undecodable images in one message


@dataclass(frozen=True, eq=False)
class Batch:
    """Images (n, 3, height, width) and their classes (n,), int64, on one device; no later batch overwrites them."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Order:
    """Which images make a batch, (n,), and how each is changed: columns (n, ...), the same ones in every batch."""

    samples: NDArray[np.int64]
    columns: Columns = field(default_factory=dict)


class ImageLoader:
    """One rank's batches, one per step from `start_step` on, without end.

    Step s is a part of global batch s, the same whatever the number of ranks; the parts of two ranks differ by one
    image at most and keep their sizes. An image is changed by what (seed, epoch, sample) draw, on any rank.

    Raises ValueError naming the images that cannot be decoded, and passes on what the source raises (up to
    `BATCHES_AHEAD` steps early); it cannot be used after that.
    """

    def __init__(
        self,
        source: Source,
        form: ImageFormat,
        *,
        global_batch: int,
        rank: int,
        size: int,
        seed: int,
        augmentation: Augmentation | None = None,
        num_threads: int = 1,
        start_step: int = 0,
    ) -> None:
        if global_batch < size:
            raise ValueError(f"a global batch of {global_batch} images leaves some of {size} ranks without any")
        self._source, self._form, self._seed = source, form, seed
        self._augmentation = augmentation or Augmentation()
        self._global_batch, self._rank, self._size = global_batch, rank, size
        self._batches = _DecodedBatches(source, form, self.order, start_step, num_threads)

    @property
    def step(self) -> int:
        """The step the next batch belongs to."""
        return self._batches.number

    def order(self, step: int) -> Order:
        """Which images this rank sees in a step, and how they are changed."""
        positions = rank_positions(step, self._global_batch, self._rank, self._size)
        epochs, samples = samples_at(positions, len(self._source), self._seed)
        drawn = (self._augmentation, Draws(epochs, samples, self._seed), self._form.height, self._form.width)
        return Order(samples, {**geometry_columns(*drawn), **pixel_columns(*drawn)})

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._batches)


def sequential_batches(
    source: Source, form: ImageFormat, samples: Sequence[int] | NDArray[np.int64], *, batch: int, num_threads: int = 1
) -> Iterator[Batch]:
    """The named images in the order given, unchanged, `batch` at a time; the last batch may be shorter.

    Raises like `ImageLoader`.
    """
    if batch < 1:
        raise ValueError(f"batches of {batch} images: expected at least 1")
    chosen = np.asarray(samples, np.int64)

    def order(number: int) -> Order | None:
        part = chosen[number * batch : (number + 1) * batch]
        return Order(part) if part.size else None

    return _DecodedBatches(source, form, order, 0, num_threads) if chosen.size else iter(())


class _DecodedBatches:
    """The batches of `orders(first)`, `orders(first + 1)`, ... up to the first None; none is larger than the first."""

    def __init__(
        self, source: Source, form: ImageFormat, orders: Callable[[int], Order | None], first: int, num_threads: int
    ) -> None:
        self._source, self._form, self._orders = source, form, orders
        self._pipeline = _new_pipeline(source, form, orders, first, num_threads)
        self._failure: Exception | None = None
        self.number = first

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._failure:
            raise self._failure
        try:
            outputs = self._pipeline.run()
        except StopIteration:
            raise
        except Exception as error:
            self._failure = self._explained(error)
            raise self._failure from error
        # No copy: DALI's dynamic executor gives each batch memory of its own, kept for as long as the tensor lives
        # (test_a_batch_kept_is_not_overwritten_by_later_ones).
        images, labels = (from_dlpack(output.as_tensor()) for output in outputs)
        self.number += 1
        return Batch(images.permute(0, 3, 1, 2) if self._form.channels_last else images, labels)

    def _explained(self, error: Exception) -> Exception:
        """The error, or what it comes from: DALI says that an image of the batch is bad, but mostly not which."""
        order = self._orders(self.number)
        if not isinstance(error, RuntimeError) or order is None:
            return error
        bad = [int(sample) for sample in order.samples if not _is_decodable(self._source, self._form, int(sample))]
        if not bad:
            return error
        named = "; ".join(_description(self._source, sample) for sample in bad[:MOST_NAMED])
        return ValueError(
            f"batch {self.number}: {len(bad)} of {len(order.samples)} images cannot be decoded: {named}"
            f"{'; ...' if len(bad) > MOST_NAMED else ''}. Repair them or leave them out of the data set"
        )


def _new_pipeline(
    source: Source, form: ImageFormat, orders: Callable[[int], Order | None], first: int, num_threads: int
) -> Pipeline:
    """A DALI pipeline that decodes `orders`, asking for each from the thread that runs it."""
    example = orders(first)
    assert example is not None

    def columns(batch: Any) -> list[Any]:
        order = orders(first + batch.iteration)
        if order is None:
            raise StopIteration
        images = [source.read(int(sample)) for sample in order.samples]
        return [images, source.labels[order.samples], *order.columns.values()]

    return pipeline(
        columns,
        form,
        example.columns,
        batch_size=len(example.samples),
        num_threads=num_threads,
        device_id=None if form.device == CPU else form.device,
        prefetch_queue_depth=BATCHES_AHEAD,
        exec_dynamic=True,
    )


def _is_decodable(source: Source, form: ImageFormat, sample: int) -> bool:
    """Whether an image decodes by itself, in a pipeline of its own: one that failed is not to be used again."""
    order = Order(np.array([sample]))
    try:
        _new_pipeline(source, form, lambda number: order if number == 0 else None, 0, num_threads=1).run()
    except RuntimeError:
        return False
    return True


def _description(source: Source, sample: int) -> str:
    encoded = source.read(sample)
    place = f"{source.name(sample)}, " if isinstance(source, NamedSource) else ""
    return f"sample {sample} ({place}{encoded.size} bytes, first {encoded[:4].tobytes().hex()})"
