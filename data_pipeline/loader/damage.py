"""Images that cannot be used, and those that take their places.

Whether an image can be used is a matter of its bytes, and who takes its place one of (seed, epoch, sample). So any
number of ranks, and a run that was resumed, make the same batches, whichever of them met the damage first, and whether
it was met in training or known before it began.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_pipeline.hashing import bits, key
from data_pipeline.images.checks import checked_header
from data_pipeline.images.headers import ImageHeader
from data_pipeline.source import Source

SUBSTITUTE_STREAM = 3  # apart from every other use of the same seed
MOST_SUBSTITUTES = 64  # all of them bad by chance: one image in 2**64 where half of the set is
_log = logging.getLogger(__name__)


class SoundImages(NamedTuple):
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


class Damage:
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

    def sound_images(self, epochs: NDArray[np.int64], samples: NDArray[np.int64]) -> SoundImages:
        """Some samples in their epochs, both (n,), those known or now found to be bad replaced, and their bytes.

        ValueError where all that could take an image's place are bad as well: the set is mostly damaged, or gone.
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
        return SoundImages(shown, encoded, headers, replaced)

    def condemn(self, sample: int, reason: str) -> None:
        """Counts a sample among the bad ones from now on."""
        if sample not in self._found:
            self._found.add(sample)
            _log.warning("sample %d (%s) is replaced by another: %s", sample, self._source.name(sample), reason)

    def _image(self, sample: int) -> tuple[NDArray[np.uint8], ImageHeader] | None:
        if sample in self._found:
            return None
        image = image_or_problem(self._source, sample)
        if isinstance(image, str):
            self.condemn(sample, image)
            return None
        return image

    def _substitute(self, epoch: int, sample: int) -> tuple[int, tuple[NDArray[np.uint8], ImageHeader]]:
        candidates = substitutes(epoch, sample, len(self._source), self._seed)
        for candidate in candidates[~self._are_listed(candidates)].tolist():
            image = self._image(candidate)
            if image is not None:
                return candidate, image
        raise ValueError(
            f"{self._source.name(sample)} cannot be used, nor can any of the {MOST_SUBSTITUTES} images drawn "
            "to take its place: the data set is out of reach or mostly damaged. `partial-fc verify` says more"
        )

    def _are_listed(self, samples: NDArray[np.int64]) -> NDArray[np.bool_]:
        if not self._listed.size:
            return np.zeros(samples.shape, np.bool_)
        at = np.searchsorted(self._listed, samples)
        found: NDArray[np.bool_] = self._listed[np.minimum(at, self._listed.size - 1)] == samples
        return found
