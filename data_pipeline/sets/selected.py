"""A part of a set: identities with enough images, called 0, 1, ... anew."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from data_pipeline.source import Source, View


class SelectedSource(View):
    """The images of `source` whose identity has at least `least_images`, in the order they had.

    Labels become 0..C-1, in the order they had: the classifier has no row for an identity without images.
    `original_labels`, (C,), is what they were; `identities` their names where the source has names.
    Holds 12 bytes an image kept. ValueError when nobody has that many images.
    """

    def __init__(self, source: Source, *, least_images: int) -> None:
        if least_images < 1:
            raise ValueError(f"at least {least_images} images of each identity: expected 1 or more")
        counts = np.bincount(source.labels)
        is_kept = counts >= least_images
        if not is_kept.any():
            raise ValueError(
                f"no identity has {least_images} images, the most that one has is {counts.max(initial=0)}: "
                "choose a smaller number"
            )
        self.source, self.files = source, source.files
        self.original_labels: NDArray[np.int64] = np.flatnonzero(is_kept)
        self._samples = _compact(np.flatnonzero(is_kept[source.labels]))
        new_labels = np.cumsum(is_kept) - 1
        self.labels: NDArray[np.int64] = new_labels[source.labels[self._samples]]
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


def _compact(samples: NDArray[np.int64]) -> NDArray[np.uint32] | NDArray[np.int64]:
    return samples.astype(np.uint32) if samples.size == 0 or samples[-1] < 2**32 else samples
