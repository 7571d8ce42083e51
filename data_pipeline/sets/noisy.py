"""Wrong labels on purpose: what a loss makes of a data set that nobody cleaned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_pipeline.hashing import bits, fractions, key
from data_pipeline.source import Source, View

_WHETHER, _WHICH = 1, 2  # streams of the hash: one must not tell about the other


class NoisyLabels(View):
    """`source` with a share of its labels replaced, each by one of the other classes, all of them equally likely.

    An image is hit with probability `share`, drawn from (seed, sample) alone: the same on every rank, in every epoch
    and after a resumption, and an image hit at 20 % is hit, and called the same, at 40 %. Images, their number and
    `num_classes` stay as they are.
    """

    def __init__(self, source: Source, share: float, seed: int) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share of wrong labels {share}: expected 0 to 1")
        if source.num_classes < 2:
            raise ValueError(f"a source of {source.num_classes} class(es) has no other class to draw a label from")
        self.source, self.files, self.left_out = source, source.files, source.left_out
        self.num_classes = source.num_classes
        self.labels = _replaced(source.labels, source.num_classes, share, seed)

    def origin(self, sample: int) -> tuple[Source, int]:
        """The source, and the same number."""
        return self.source, sample

    def prefetch(self, samples: NDArray[np.int64]) -> None:
        """Passes on what will be read."""
        self.source.prefetch(samples)


def _replaced(labels: NDArray[np.int64], num_classes: int, share: float, seed: int) -> NDArray[np.int64]:
    samples = np.arange(labels.size, dtype=np.uint64)
    is_hit = fractions(bits(key(seed, _WHETHER), samples)) < share
    # fractions are multiples of 2**-53, so no product with a count of classes reaches num_classes - 1
    shift = 1 + (fractions(bits(key(seed, _WHICH), samples)) * (num_classes - 1)).astype(np.int64)
    return np.where(is_hit, (labels + shift) % num_classes, labels)
