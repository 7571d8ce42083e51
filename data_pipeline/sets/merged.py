"""Identities that are one person under two names, as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from data_pipeline.source import Source, View


class MergedSource(View):
    """`source` with the identities of each pair of labels as one, which has the smaller label.

    Of several pairs with a label in common all are one. The other labels keep their numbers and stand without images:
    see `numbered_without_gaps`. ValueError for a label that no image has.
    """

    def __init__(self, source: Source, pairs: Iterable[tuple[int, int]]) -> None:
        self.source, self.files, self.left_out = source, source.files, source.left_out
        self.num_classes = source.num_classes
        smallest = _smallest(pairs)
        if (missing := np.setdiff1d([*smallest], source.labels)).size:
            raise ValueError(f"label {missing[0]} is to be merged, but no image of the set has it")
        self.labels = source.labels.copy()
        old = np.array(sorted(smallest), np.int64)
        if old.size:
            new = np.array([smallest[label] for label in old.tolist()], np.int64)
            places = np.minimum(np.searchsorted(old, source.labels), old.size - 1)
            self.labels = np.where(old[places] == source.labels, new[places], source.labels)

    @cached_property
    def identities(self) -> Sequence[str] | None:
        """The names that the source knows: those of labels without images too."""
        return self.source.identities

    def origin(self, sample: int) -> tuple[Source, int]:
        """The source, and the same number."""
        return self.source, sample

    def prefetch(self, samples: NDArray[np.int64]) -> None:
        """Passes on what will be read."""
        self.source.prefetch(samples)


def _smallest(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """The smallest label that each label is joined with by a chain of pairs."""
    parent = dict[int, int]()

    def root(label: int) -> int:
        parent.setdefault(label, label)
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return {label: root(label) for label in list(parent)}
