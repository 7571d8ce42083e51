"""A part of a set: identities that have images, or enough of them, called 0, 1, ... anew."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_pipeline.source import Source, View

MOST_NAMED = 5  # labels in one sentence


class SelectedSource(View):
    """The images of `source` whose identity has at least `least_images`, in the order they had; none of `left_out`.

    Labels become 0..C-1, in the order they had: the classifier has no row for an identity without images.
    `original_labels`, (C,), is what they were; `identities` their names where the source has names.
    Holds 12 bytes an image kept. ValueError when nobody has that many images.
    """

    def __init__(self, source: Source, *, least_images: int = 1, left_out: ArrayLike = ()) -> None:
        if least_images < 1:
            raise ValueError(f"at least {least_images} images of each identity: expected 1 or more")
        is_kept = np.ones(len(source), np.bool_)
        is_kept[np.asarray(left_out, np.int64)] = False
        labels, counts = label_counts(source.labels[is_kept])
        self.original_labels: NDArray[np.int64] = labels[counts >= least_images]
        if not self.original_labels.size:
            raise ValueError(
                f"no identity has {least_images} images, the most that one has is {counts.max(initial=0)}: "
                "choose a smaller number"
            )
        is_kept &= np.isin(source.labels, self.original_labels)
        self.source, self.files, self.left_out = source, source.files, source.left_out
        self._samples = _compact(np.flatnonzero(is_kept))
        self.labels: NDArray[np.int64] = np.searchsorted(self.original_labels, source.labels[self._samples])
        self.num_classes = self.original_labels.size

    @cached_property
    def identities(self) -> Sequence[str] | None:
        """The name of every label, or None where the source has no names."""
        names = self.source.identities
        return None if names is None else [names[label] for label in self.original_labels.tolist()]

    def original_sample(self, sample: int) -> int:
        """The number that an image has in the source. IndexError for a number outside this set."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        return int(self._samples[sample])

    def samples_of(self, originals: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers here of those images of the source, ascending and by their numbers there, that were kept."""
        places = np.searchsorted(self._samples, originals)
        is_inside = places < len(self)
        places, originals = places[is_inside], originals[is_inside]
        found: NDArray[np.int64] = places[self._samples[places] == originals]
        return found

    def origin(self, sample: int) -> tuple[Source, int]:
        """The source, and the number that an image has in it."""
        return self.source, self.original_sample(sample)

    def prefetch(self, samples: NDArray[np.int64]) -> None:
        """Passes on what will be read."""
        self.source.prefetch(self._samples[samples].astype(np.int64))


def numbered_without_gaps(source: Source) -> Source:
    """`source` itself, or a view of it with the labels 0..C-1 where some label up to the largest has no image."""
    return source if label_counts(source.labels)[0].size == source.num_classes else SelectedSource(source)


def label_counts(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The labels that have images, ascending, and how many images each has.

    Labels may be ids of any size, so that counting up to the largest would take more memory than there is.
    """
    if labels.max(initial=0) >= labels.size:
        return np.unique(labels, return_counts=True)
    counts = np.bincount(labels)  # a twentieth of the time
    occurring = np.flatnonzero(counts)
    return occurring, counts[occurring]


def gaps_in_words(source: Source) -> str | None:
    """Which labels have no image, and which image has the largest label; None where all up to it have some."""
    labels, _ = label_counts(source.labels)
    if not (missing := source.num_classes - labels.size):
        return None
    early = np.arange(min(source.num_classes, labels.size + MOST_NAMED))  # the first gaps come early
    first = ", ".join(map(str, np.setdiff1d(early, labels)[:MOST_NAMED].tolist()))
    return (
        f"{missing:,} of the labels 0 to {source.num_classes - 1:,} have no image (the first: {first}); the largest is "
        f"that of {source.name(int(source.labels.argmax()))}"
    )


def _compact(samples: NDArray[np.int64]) -> NDArray[np.uint32] | NDArray[np.int64]:
    return samples.astype(np.uint32) if samples.size == 0 or samples[-1] < 2**32 else samples
