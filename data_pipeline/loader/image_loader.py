"""Decoded, augmented, normalised batches, by DALI.

DALI decodes in threads of its own while the model trains. Which images it decodes, and how they are changed, it is told
batch by batch from `order`, `damage` and the `augment` files, so it holds no state: a run goes on from one integer, the
step. Labels travel beside the images as int64.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.augment.draws import Draws
from data_pipeline.augment.geometry import geometry_columns
from data_pipeline.augment.pixels import pixel_columns
from data_pipeline.images.checks import checked_header
from data_pipeline.loader.dali_graph import ImageFormat
from data_pipeline.loader.damage import Damage
from data_pipeline.loader.decoded_batches import BATCHES_AHEAD, Batch, DecodedBatches, Encoded, Order
from data_pipeline.order.shuffled import SampleOrder, ShuffledOrder, rank_positions
from data_pipeline.read_ahead import IMAGES_AHEAD, ReadAhead
from data_pipeline.source import Source

__all__ = ["BATCHES_AHEAD", "Batch", "ImageFormat", "ImageLoader", "Order", "sequential_batches"]

MOST_NAMED = 8  # bad images in one message
Drawn = tuple[NDArray[np.int64], NDArray[np.int64]]  # epochs and samples, as the order has them


class ImageLoader:
    """One rank's batches, one per step from `start_step` on, without end.

    `sample_order` says which images follow each other; by default each once an epoch, in a shuffled order.
    Step s is a part of global batch s, the same whatever the number of ranks; the parts of two ranks differ by one
    image at most and keep their sizes. An image is changed by what (seed, epoch, sample) draw, on any rank.

    An image in `quarantine`, or one that cannot be read or decoded, is replaced by another with that one's label and
    changes (see `damage`). `images` counts what was handed out, `replaced` those of it that stand for an image of the
    second kind. One that only the decoder refuses costs a pipeline, made anew from that step on, when it first comes
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
        self._damage = Damage(source, seed, quarantine)
        self._read_ahead, self._ahead = ReadAhead(source), dict[int, Drawn]()
        self.images = self.replaced = 0
        self._batches = DecodedBatches(form, source.labels, self._encoded, self._condemn, start_step, num_threads)

    @property
    def step(self) -> int:
        """The step the next batch belongs to."""
        return self._batches.number

    def order(self, step: int) -> Order:
        """Which images of an undamaged set this rank sees in a step, and how they are changed."""
        (drawn,) = self._drawn([step])
        return self._order(*drawn)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.images += len(batch.labels)
        self.replaced += batch.replaced
        return batch

    def _encoded(self, step: int) -> Encoded:
        epochs, samples = self._ahead.pop(step) if step in self._ahead else self._drawn([step])[0]
        self._hint(range(step + 1, step + 1 + -(-IMAGES_AHEAD // samples.size)))
        sound = self._damage.sound_images(epochs, samples)
        return Encoded(self._order(epochs, sound.samples), sound.encoded, sound.headers, sound.replaced)

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

    def _order(self, epochs: NDArray[np.int64], samples: NDArray[np.int64]) -> Order:
        drawn = (self._augmentation, Draws(epochs, samples, self._seed), self._form.height, self._form.width)
        return Order(samples, {**geometry_columns(*drawn), **pixel_columns(*drawn)})

    def _condemn(self, step: int, problems: dict[int, str]) -> None:
        for sample, reason in problems.items():
            self._damage.condemn(sample, reason)


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

    def encoded(number: int) -> Encoded | None:
        part = chosen[number * batch : (number + 1) * batch]
        images = [source.read(sample) for sample in part.tolist()]
        found = [checked_header(image.tobytes()) for image in images]
        if bad := {sample: each for sample, each in zip(part.tolist(), found, strict=True) if isinstance(each, str)}:
            refuse(number, bad)
        headers = [each for each in found if not isinstance(each, str)]
        return Encoded(Order(part), images, headers) if part.size else None

    def refuse(number: int, problems: dict[int, str]) -> None:
        named = [f"{source.name(sample)}: {reason}" for sample, reason in problems.items()]
        of = min(batch, chosen.size - number * batch)
        raise ValueError(
            f"batch {number}: {len(named)} of {of} images cannot be used: {'; '.join(named[:MOST_NAMED])}"
            f"{'; ...' if len(named) > MOST_NAMED else ''}. Repair them or leave them out of the data set"
        )

    return DecodedBatches(form, source.labels, encoded, refuse, 0, num_threads) if chosen.size else iter(())
