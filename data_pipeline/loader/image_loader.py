"""Decoded, augmented, normalised batches, by DALI.

DALI decodes in threads of its own while the model trains. Which images it decodes, and how they are changed, follows
batch by batch from the step alone (`order`, `augment`, `bad_images`): the step is the whole state of a run's loader.
Labels travel beside the images as int64.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.augment.draws import Draws
from data_pipeline.augment.geometry import geometry_parameters
from data_pipeline.augment.pixels import pixel_parameters
from data_pipeline.images.checks import checked_header
from data_pipeline.images.headers import ImageHeader
from data_pipeline.loader.bad_images import ANY_SIZE, BLACK_PIXEL, BadImages, image_or_problem
from data_pipeline.loader.dali_graph import ImageFormat
from data_pipeline.loader.decoded_batches import Batch, DecodedBatches
from data_pipeline.loader.feed import BATCHES_AHEAD, BatchPlan, EncodedBatch
from data_pipeline.order.shuffled import SampleOrder, ShuffledOrder, rank_positions
from data_pipeline.read_ahead import IMAGES_AHEAD, ReadAhead
from data_pipeline.source import Source

__all__ = ["BATCHES_AHEAD", "Batch", "BatchPlan", "ImageFormat", "ImageLoader", "sequential_batches", "usable_batches"]

MOST_NAMED = 8  # bad images in one message
Drawn = tuple[NDArray[np.int64], NDArray[np.int64]]  # epochs and samples, as the order has them


class ImageLoader:
    """One rank's batches, one per step from `start_step` on, without end.

    `sample_order` says which images follow each other; by default each once an epoch, in a shuffled order.
    Step s is a part of global batch s, the same whatever the number of ranks; the parts of two ranks differ by one
    image at most and keep their sizes. An image is changed by what (seed, epoch, sample) draw, on any rank.

    An image in `quarantine`, or one that cannot be read or decoded, is replaced by another with that one's label and
    changes (see `bad_images`). `images` counts the images handed out, `replaced` those among them that stand for one
    that could not be read or decoded. An image that only the decoder refuses costs a new pipeline when it first comes
    up: some tenths of a second.
    ValueError where nothing can take an image's place, up to `BATCHES_AHEAD` steps early; no use after that.
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
        quarantine: ArrayLike = (),
        sample_order: SampleOrder | None = None,
        num_threads: int = 1,
        start_step: int = 0,
    ) -> None:
        if global_batch < size:
            raise ValueError(f"a global batch of {global_batch} images leaves some of {size} ranks without any")
        self._source, self._form, self._seed = source, form, seed
        self._augmentation = augmentation or Augmentation()
        self._global_batch, self._rank, self._size = global_batch, rank, size
        self._sample_order = sample_order or ShuffledOrder(len(source), seed)
        self._bad_images = BadImages(source, seed, quarantine)
        self._read_ahead, self._ahead = ReadAhead(source), dict[int, Drawn]()
        self.images = self.replaced = 0
        self._batches = DecodedBatches(form, source.labels, self, start_step, num_threads)

    @property
    def step(self) -> int:
        """The step the next batch belongs to."""
        return self._batches.step

    def plan(self, step: int) -> BatchPlan:
        """Which images of an undamaged set this rank sees in a step, and how they are changed."""
        (drawn,) = self._drawn([step])
        return self._plan(*drawn)

    def change_augmentation(self, augmentation: Augmentation) -> None:
        """From the next batch on images are changed so. The batches that were made ahead are made anew."""
        self._augmentation = augmentation
        self._batches.start_pipeline()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.images += len(batch.labels)
        self.replaced += batch.replaced
        return batch

    def encoded(self, step: int) -> EncodedBatch:
        """The encoded images of a step, bad ones replaced; and hints for those of later steps (`ReadAhead`)."""
        epochs, samples = self._ahead.pop(step) if step in self._ahead else self._drawn([step])[0]
        self._hint(range(step + 1, step + 1 + -(-IMAGES_AHEAD // samples.size)))
        usable = self._bad_images.usable_images(epochs, samples)
        return EncodedBatch(self._plan(epochs, usable.samples), usable.encoded, usable.headers, usable.replaced)

    def mark_bad(self, step: int, problems: dict[int, str]) -> None:
        """Has the samples that DALI cannot decode replaced from now on."""
        for sample, reason in problems.items():
            self._bad_images.mark(sample, reason)

    def _hint(self, steps: range) -> None:
        """Asks for the images of these steps, where that was not done before, and keeps what was drawn for them.

        Only once half of them are missing: to draw an order costs 3 us an image by 64, and 0.7 by 512.
        """
        missing = [step for step in steps if step not in self._ahead]
        if 2 * len(missing) >= len(steps):
            self._ahead |= zip(missing, self._drawn(missing), strict=True)
            self._read_ahead.ask(np.concatenate([self._ahead[step][1] for step in missing]))

    def _drawn(self, steps: Sequence[int]) -> list[Drawn]:
        positions = [rank_positions(step, self._global_batch, self._rank, self._size) for step in steps]
        drawn = self._sample_order.samples_at(np.concatenate(positions))
        epochs, samples = (np.split(numbers, np.cumsum([part.size for part in positions[:-1]])) for numbers in drawn)
        return list(zip(epochs, samples, strict=True))

    def _plan(self, epochs: NDArray[np.int64], samples: NDArray[np.int64]) -> BatchPlan:
        drawn = (self._augmentation, Draws(epochs, samples, self._seed), self._form.height, self._form.width)
        return BatchPlan(samples, {**geometry_parameters(*drawn), **pixel_parameters(*drawn)})


def sequential_batches(
    source: Source, form: ImageFormat, samples: Sequence[int] | NDArray[np.int64], *, batch: int, num_threads: int = 1
) -> Iterator[Batch]:
    """The named images in the order given, unchanged, `batch` at a time; the last batch may be shorter.

    Raises ValueError naming the images that cannot be decoded, and passes on what the source raises (up to
    `BATCHES_AHEAD` batches early): nothing takes the place of an image that was asked for.
    """
    if batch < 1:
        raise ValueError(f"batches of {batch} images: expected at least 1")
    chosen = np.asarray(samples, np.int64)
    feed = _InSequence(source, chosen, batch)
    return DecodedBatches(form, source.labels, feed, 0, num_threads) if chosen.size else iter(())


def usable_batches(
    source: Source,
    form: ImageFormat,
    samples: Sequence[int] | NDArray[np.int64],
    *,
    batch: int,
    left_out: Collection[int] = (),
    bad: dict[int, str],
) -> Iterator[Batch]:
    """As `sequential_batches`, with a black image for each one that is `left_out` or cannot be used.

    `bad` gets the numbers of those that cannot be used, each with the reason, before their batch comes. So the other
    images have the batches, and to the last bit the embeddings, that they would have in an undamaged set.
    """
    chosen = np.asarray(samples, np.int64)
    feed = _WithStandIns(source, chosen, batch, left_out, bad)
    return DecodedBatches(form, source.labels, feed, 0, 1) if chosen.size else iter(())


class _WithStandIns:
    """A feed of chosen images, with black ones for those that cannot be used."""

    def __init__(
        self, source: Source, chosen: NDArray[np.int64], batch: int, left_out: Collection[int], bad: dict[int, str]
    ) -> None:
        self._source, self._chosen, self._batch, self._left_out, self._bad = source, chosen, batch, left_out, bad

    def encoded(self, step: int) -> EncodedBatch | None:
        part = self._chosen[step * self._batch : (step + 1) * self._batch]
        found = [self._image(sample) for sample in part.tolist()]
        if not found:
            return None
        images, headers = zip(*found, strict=True)
        return EncodedBatch(BatchPlan(part), list(images), list(headers))

    def mark_bad(self, step: int, problems: dict[int, str]) -> None:
        self._bad.update(problems)

    def _image(self, sample: int) -> tuple[NDArray[np.uint8], ImageHeader]:
        if sample not in self._left_out and sample not in self._bad:
            image = image_or_problem(self._source, sample)
            if not isinstance(image, str):
                return image
            self._bad[sample] = image
        return BLACK_PIXEL, ANY_SIZE


class _InSequence:
    """A feed of chosen images, which refuses bad ones."""

    def __init__(self, source: Source, chosen: NDArray[np.int64], batch: int) -> None:
        self._source, self._chosen, self._batch = source, chosen, batch

    def encoded(self, step: int) -> EncodedBatch | None:
        part = self._chosen[step * self._batch : (step + 1) * self._batch]
        images = [self._source.read(sample) for sample in part.tolist()]
        found = [checked_header(image.tobytes()) for image in images]
        if bad := {sample: each for sample, each in zip(part.tolist(), found, strict=True) if isinstance(each, str)}:
            self.mark_bad(step, bad)
        headers = [each for each in found if not isinstance(each, str)]
        return EncodedBatch(BatchPlan(part), images, headers) if part.size else None

    def mark_bad(self, step: int, problems: dict[int, str]) -> None:
        named = [f"{self._source.name(sample)}: {reason}" for sample, reason in problems.items()]
        of = min(self._batch, self._chosen.size - step * self._batch)
        raise ValueError(
            f"batch {step}: {len(named)} of {of} images cannot be used: {'; '.join(named[:MOST_NAMED])}"
            f"{'; ...' if len(named) > MOST_NAMED else ''}. Repair them or leave them out of the data set"
        )
