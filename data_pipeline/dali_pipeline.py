"""Decoded, augmented, normalised batches: the only file that knows DALI.

DALI decodes in threads of its own while the model trains. Which images it decodes, and how they are moved, it is told
batch by batch from `order` and `augment`, so it holds no state: a run goes on from one integer, the step. Labels travel
beside the images as int64. Pixels arrive as (x - 127.5) / 127.5.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import Pipeline, pipeline_def
from nvidia.dali.types import DALIDataType, DALIImageType
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from data_pipeline import NamedSource, Source
from data_pipeline.augment import Augmentation, affine_matrices, mirrored
from data_pipeline.order import rank_positions, samples_at

CPU = "cpu"
HALF_RANGE = 127.5
DALI_TYPES = {torch.float32: DALIDataType.FLOAT, torch.float16: DALIDataType.FLOAT16}
BATCHES_AHEAD = 2  # decoded while the model works on another
MOST_NAMED = 8  # undecodable images in one message


@dataclass(frozen=True, eq=False)
class Batch:
    """Images (n, 3, height, width) and their classes (n,), int64, on one device; no later batch overwrites them."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ImageFormat:
    """What every image becomes, and where. An image stored in another size is resized to this one."""

    height: int
    width: int
    device: str | int = CPU
    """`"cpu"`, or the number of a CUDA device, which then decodes as well."""
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    fill: float = 0
    """Whole pixel value, 0 to 255, of what a moved image leaves bare."""

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ValueError(f"images of {self.height} x {self.width} pixels: expected at least 1 x 1")
        if self.dtype not in DALI_TYPES:
            raise ValueError(f"dtype {self.dtype}: expected one of {', '.join(map(str, DALI_TYPES))}")
        if self.fill not in range(256):
            raise ValueError(f"fill {self.fill}: expected a whole pixel value, 0 to 255, as images are moved in bytes")
        if self.device != CPU and not isinstance(self.device, int):
            raise ValueError(f'device {self.device!r}: expected "cpu" or the number of a CUDA device')


@dataclass(frozen=True, eq=False)
class Order:
    """Which images make a batch, (n,), and how each is moved: matrices (n, 2, 3), or mirror flags (n,), or neither."""

    samples: NDArray[np.int64]
    matrices: NDArray[np.float32] | None = None
    flips: NDArray[np.int32] | None = None


class ImageLoader:
    """One rank's batches, one per step from `start_step` on, without end.

    Step s is a part of global batch s, the same whatever the number of ranks; the parts of two ranks differ by one
    image at most and keep their sizes. An image is moved by what (seed, epoch, sample) draw, on any rank.

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
        """Which images this rank sees in a step, and how they are moved."""
        positions = rank_positions(step, self._global_batch, self._rank, self._size)
        epochs, samples = samples_at(positions, len(self._source), self._seed)
        draw = (self._augmentation, epochs, samples, self._seed)
        if self._augmentation.warps:
            return Order(samples, matrices=affine_matrices(*draw, self._form.height, self._form.width))
        if self._augmentation.mirrors:
            return Order(samples, flips=mirrored(*draw).astype(np.int32))
        return Order(samples)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._batches)


def sequential_batches(
    source: Source, form: ImageFormat, samples: Sequence[int] | NDArray[np.int64], *, batch: int, num_threads: int = 1
) -> Iterator[Batch]:
    """The named images in the order given, unmoved, `batch` at a time; the last batch may be shorter.

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
        moves = [column for column in (order.matrices, order.flips) if column is not None]
        images = [source.read(int(sample)) for sample in order.samples]
        return [images, source.labels[order.samples], *moves]

    return _pipeline(
        columns,
        form,
        warps=example.matrices is not None,
        mirrors=example.flips is not None,
        batch_size=len(example.samples),
        num_threads=num_threads,
        device_id=None if form.device == CPU else form.device,
        prefetch_queue_depth=BATCHES_AHEAD,
        exec_dynamic=True,
    )


def _graph(
    columns: Callable[[Any], list[Any]], form: ImageFormat, warps: bool, mirrors: bool
) -> tuple[DataNode, DataNode]:
    """The DALI graph: encoded bytes to normalised pixels. DALI rewrites its `if`s over data to act image by image."""
    kinds, dimensions = [DALIDataType.UINT8, DALIDataType.INT64], [1, 0]
    if warps:
        kinds, dimensions = [*kinds, DALIDataType.FLOAT], [*dimensions, 2]
    if mirrors:
        kinds, dimensions = [*kinds, DALIDataType.INT32], [*dimensions, 0]
    encoded, labels, *moves = fn.external_source(
        source=columns, num_outputs=len(kinds), batch=True, batch_info=True, dtype=kinds, ndim=dimensions
    )
    shape = fn.peek_image_shape(encoded)
    decoder = "cpu" if form.device == CPU else "mixed"
    images: Any = fn.decoders.image(encoded, device=decoder, output_type=DALIImageType.RGB)
    if shape[0] != form.height or shape[1] != form.width:
        images = fn.resize(images, size=[form.height, form.width])
    if warps:
        images = fn.warp_affine(images, matrix=moves[0], fill_value=form.fill)
    images = fn.crop_mirror_normalize(
        images,
        mirror=moves[0] if mirrors else 0,
        mean=[HALF_RANGE] * 3,
        std=[HALF_RANGE] * 3,
        dtype=DALI_TYPES[form.dtype],
        output_layout="HWC" if form.channels_last else "CHW",
    )
    return images, labels if form.device == CPU else labels.gpu()


_pipeline = pipeline_def(enable_conditionals=True)(_graph)


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
