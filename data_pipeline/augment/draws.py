"""The random numbers behind augmentations, once per (seed, epoch, sample): whichever rank, device or resumed run asks,
the same.

Each kind of change has a stream of its own, so that switching one on, or adding another to this file, leaves the draws
of all others as they were.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.hashing import bits, fractions, key

Parameters = dict[str, NDArray[Any]]
"""Parameters of the images of a batch by name, each (n, ...): what the DALI graph is told beside bytes and labels."""

AUGMENT_STREAM = 2  # apart from every other use of the same seed
DRAWS = 8  # numbers set aside per sample in each stream
CHANCE = 0  # where the number stands that decides whether a change happens; the moves came first and have none


class Change(IntEnum):
    """The kinds that have a stream; a number, once given, keeps its meaning, or old runs would draw anew."""

    WARP = 1
    CROP = 2
    COLOUR = 3
    GREY = 4
    BLUR = 5
    LOW_RESOLUTION = 6
    JPEG = 7
    ERASE = 8


@dataclass(frozen=True, eq=False)
class Draws:
    """The numbers of some samples in their epochs, both (n,)."""

    epochs: NDArray[np.int64]
    samples: NDArray[np.int64]
    seed: int

    def moves(self) -> NDArray[np.float64]:
        """Numbers in [0, 1) for mirror and warp, shape (n, DRAWS)."""
        return self._numbers(key(AUGMENT_STREAM, self.seed))

    def of(self, change: Change) -> NDArray[np.float64]:
        """Numbers in [0, 1) of one kind of change, shape (n, DRAWS), that of its chance at `CHANCE`."""
        return self._numbers(key(AUGMENT_STREAM, self.seed, change))

    def _numbers(self, stream: int) -> NDArray[np.float64]:
        streams = bits(stream, np.asarray(self.epochs).astype(np.uint64))
        first = np.asarray(self.samples).astype(np.uint64) * np.uint64(DRAWS)
        counters = first[:, None] + np.arange(DRAWS).astype(np.uint64)
        return fractions(bits(np.broadcast_to(streams[:, None], counters.shape), counters))


def between(numbers: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Numbers of [0, 1) spread evenly over [low, high)."""
    return low + (high - low) * numbers


def signed(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers of [0, 1) spread evenly over [-1, 1)."""
    return 2.0 * numbers - 1.0
