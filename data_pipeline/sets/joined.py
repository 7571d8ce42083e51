"""Several sets as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_pipeline.source import Source, View

Join = Literal["offset", "merge"]


class JoinedSource(View):
    """The images of `sources`, set after set.

    `offset`: no identity of one set is in another; each set's labels begin where those of the set before it end.
    `merge`: the same identity may be in several sets. It is known by its name where labels were made from names
    (folders, lists and tables of names), and by its number where they are numbers; ValueError where some sets have
    names and others numbers, which say nothing about each other. `identities` then has the names; it is None where
    labels are but numbers, and after `offset`, where one name may mean several identities.
    Holds 8 bytes an image beside what the sets hold.
    """

    def __init__(self, sources: Sequence[Source], join: Join = "offset") -> None:
        if not sources:
            raise ValueError("no set to join: expected at least one")
        if join not in ("offset", "merge"):
            raise ValueError(f"join {join!r}: expected 'offset' or 'merge'")
        self.sources, self.join = tuple(sources), join
        self.files = [file for source in sources for file in source.files]
        self.left_out = [said for source in sources for said in source.left_out]
        self._starts = np.cumsum([0, *map(len, sources)])
        self.identities = None if join == "offset" else _merged_names(sources)
        if self.identities is not None:
            relabelled = _labels_by_name(sources, self.identities)
        else:
            relabelled = _offset_labels(sources) if join == "offset" else [source.labels for source in sources]
        self.labels: NDArray[np.int64] = np.concatenate(relabelled)
        self.num_classes = sum(s.num_classes for s in sources) if join == "offset" else int(self.labels.max()) + 1

    def prefetch(self, samples: NDArray[np.int64]) -> None:
        """Passes on to each set what will be read of it."""
        sets = np.searchsorted(self._starts, samples, side="right") - 1
        for at in np.unique(sets).tolist():
            self.sources[at].prefetch(samples[sets == at] - self._starts[at])

    def origin(self, sample: int) -> tuple[Source, int]:
        """The set that an image comes from, and the number that it has there. IndexError for a number outside."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        at = int(np.searchsorted(self._starts, sample, side="right")) - 1
        return self.sources[at], sample - int(self._starts[at])


def joined_sets(source: Source) -> Sequence[Source]:
    """The sets that `source` was joined from; itself where it was not."""
    return source.sources if isinstance(source, JoinedSource) else (source,)


def _offset_labels(sources: Sequence[Source]) -> list[NDArray[np.int64]]:
    starts = np.cumsum([0, *(source.num_classes for source in sources)]).tolist()
    return [source.labels + start for source, start in zip(sources, starts[:-1], strict=True)]


def _merged_names(sources: Sequence[Source]) -> Sequence[str] | None:
    """The names that occur in any of the sets, in their order; None where no set has names."""
    names = [source.identities for source in sources]
    named = [found for found in names if found is not None]
    if not named:
        return None
    if len(named) < len(sources):
        lacking = next(at for at, found in enumerate(names) if found is None)
        raise ValueError(
            f"set {lacking + 1} of {len(sources)} has numbers for labels and another has names, so nothing says which "
            "identities are the same: join them by 'offset', or bring them into one form"
        )
    return sorted(set().union(*named))


def _labels_by_name(sources: Sequence[Source], identities: Sequence[str]) -> list[NDArray[np.int64]]:
    label_of = {name: label for label, name in enumerate(identities)}
    maps = [np.fromiter((label_of[name] for name in source.identities or ()), np.int64) for source in sources]
    return [found[source.labels] for found, source in zip(maps, sources, strict=True)]
