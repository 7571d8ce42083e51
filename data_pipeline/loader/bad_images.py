"""Images that cannot be used, and those that take their places.

Whether an image can be used is a matter of its bytes, and who takes its place one of (seed, epoch, sample). So any
number of ranks, and a run that was resumed, make the same batches, whichever of them met the damage first, and whether
it was met in training or known before it began.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_pipeline.hashing import bits, key
from data_pipeline.images.checks import checked_header
from data_pipeline.images.headers import ImageHeader
from data_pipeline.loader.dali_graph import ImageFormat
from data_pipeline.loader.feed import BatchPlan, EncodedBatch, InFlight, started_pipeline
from data_pipeline.source import Source

SUBSTITUTE_STREAM = 3  # apart from every other use of the same seed
BLACK_PIXEL = np.frombuffer(b"P6 1 1 255\n\0\0\0", np.uint8)
ANY_SIZE = ImageHeader("", 0, 0)
MOST_SUBSTITUTES = 64  # all of them bad by chance: one image in 2**64 where half of the set is
_log = logging.getLogger(__name__)


class UsableImages(NamedTuple):
    """The samples (n,) that a batch shows, their encoded bytes and headers, and how many stand for one newly bad."""

    samples: NDArray[np.int64]
    encoded: list[NDArray[np.uint8]]
    headers: list[ImageHeader]
    replaced: int


def substitutes(epoch: int, sample: int, num_samples: int, seed: int) -> NDArray[np.int64]:
    """The samples that take the place of one in an epoch, each if those before it cannot be used: shape (64,).

    Drawn evenly from the whole set; another epoch has others.
    """
    counters = np.uint64(sample * MOST_SUBSTITUTES) + np.arange(MOST_SUBSTITUTES, dtype=np.uint64)
    words: NDArray[np.uint64] = bits(key(SUBSTITUTE_STREAM, seed, epoch), counters)
    return (words % np.uint64(num_samples)).astype(np.int64)


def image_or_problem(source: Source, sample: int) -> tuple[NDArray[np.uint8], ImageHeader] | str:
    """The encoded bytes and the header of one image, or why they cannot be had or should not be given to a decoder.

    Headers and outlines are looked at (`checks.checked_header`), which stops bombs before they go off. Only a decoder
    finds the rest.
    """
    try:
        encoded = source.read(sample)
    except (OSError, ValueError) as error:
        return f"cannot be read: {' '.join(str(error).split())}"
    header = checked_header(encoded.tobytes())
    return header if isinstance(header, str) else (encoded, header)


def undecodable_places(images: list[NDArray[np.uint8]], form: ImageFormat) -> list[int]:
    """The places of the images that do not decode by themselves; none where nothing does, for want of memory, say.

    A millisecond or so for each image, and a pipeline for each one found.
    """
    bad, first = list[int](), 0
    if not _num_decodable([BLACK_PIXEL], form):
        return []
    while first < len(images):
        place = first + _num_decodable(images[first:], form)
        if place < len(images):
            bad.append(place)
        first = place + 1
    return bad


def _num_decodable(images: list[NDArray[np.uint8]], form: ImageFormat) -> int:
    """How many images decode, one after another, up to the first that does not: a pipeline that failed is no use."""
    alone, count = started_pipeline(InFlight(_OneByOne(images), form, 0), num_threads=1), 0
    with suppress(RuntimeError):
        while count < len(images):
            alone.run()
            count += 1
    return count


class _OneByOne:
    """A feed of one image a batch, unchanged."""

    def __init__(self, images: list[NDArray[np.uint8]]) -> None:
        self._images = images

    def encoded(self, step: int) -> EncodedBatch | None:
        if step >= len(self._images):
            return None
        return EncodedBatch(BatchPlan(np.zeros(1, np.int64)), [self._images[step]], [ANY_SIZE])

    def mark_bad(self, step: int, problems: dict[int, str]) -> None:
        raise NotImplementedError  # nothing asks for an image again


class BadImages:
    """What one rank knows to be bad of a set: what `quarantine` lists, and what it finds.

    An image once found bad stays so while the process lives, and is logged once, as a warning. Holds 8 bytes for each
    one listed and some 60 for each one found.
    """

    def __init__(self, source: Source, seed: int, quarantine: ArrayLike = ()) -> None:
        self._source, self._seed = source, seed
        self._listed = np.unique(np.asarray(quarantine, np.int64))
        if self._listed.size and not 0 <= self._listed[0] <= self._listed[-1] < len(source):
            raise ValueError(
                f"quarantined samples {self._listed[0]} to {self._listed[-1]}: expected 0 to {len(source) - 1}"
            )
        self._found: set[int] = set()

    def usable_images(self, epochs: NDArray[np.int64], samples: NDArray[np.int64]) -> UsableImages:
        """Some samples in their epochs, both (n,), those known or now found to be bad replaced, and their bytes.

        ValueError where all that could take an image's place are bad as well, OSError where the image cannot even be
        read: the set is mostly damaged, or gone.
        """
        shown, replaced = np.array(samples, np.int64), 0
        encoded, headers = list[NDArray[np.uint8]](), list[ImageHeader]()
        is_listed = self._are_listed(shown).tolist()
        for place, (epoch, sample) in enumerate(zip(epochs.tolist(), samples.tolist(), strict=True)):
            image = None if is_listed[place] else self._image(sample)
            if image is None:
                replaced += not is_listed[place]
                shown[place], image = self._substitute(epoch, sample)
            encoded.append(image[0])
            headers.append(image[1])
        return UsableImages(shown, encoded, headers, replaced)

    def mark(self, sample: int, reason: str) -> None:
        """Counts a sample among the bad ones from now on."""
        if sample not in self._found:
            self._found.add(sample)
            _log.warning("sample %d (%s) is replaced by another: %s", sample, self._source.name(sample), reason)

    def _image(self, sample: int) -> tuple[NDArray[np.uint8], ImageHeader] | None:
        if sample in self._found:
            return None
        image = image_or_problem(self._source, sample)
        if isinstance(image, str):
            self.mark(sample, image)
            return None
        return image

    def _substitute(self, epoch: int, sample: int) -> tuple[int, tuple[NDArray[np.uint8], ImageHeader]]:
        candidates = substitutes(epoch, sample, len(self._source), self._seed)
        for candidate in candidates[~self._are_listed(candidates)].tolist():
            image = self._image(candidate)
            if image is not None:
                return candidate, image
        said = (
            f"{self._source.name(sample)} cannot be used, nor can any of the {MOST_SUBSTITUTES} images drawn "
            "to take its place: the data set is out of reach or mostly damaged. `partial-fc verify` says more"
        )
        with suppress(ValueError):
            try:
                self._source.read(sample)
            except OSError as error:
                raise OSError(error.errno, f"{said} ({error.strerror})") from error
        raise ValueError(said)

    def _are_listed(self, samples: NDArray[np.int64]) -> NDArray[np.bool_]:
        if not self._listed.size:
            return np.zeros(samples.shape, np.bool_)
        at = np.searchsorted(self._listed, samples)
        found: NDArray[np.bool_] = self._listed[np.minimum(at, self._listed.size - 1)] == samples
        return found
