"""Lists of image pairs in the manner of LFW's ``pairs.txt``, for accuracy over folds.

::

    10  300                 folds, and pairs of each kind in a fold
    Abel_Pacheco  1  4      the first and the fourth image of one identity
    Abdel_Madi  1  Dean  2  an image of each of two

Fields are separated by tabs, or by blanks in a line without tabs. Images count from 1 within their identity, in the
order in which they were packed: that of the file names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class PairList(NamedTuple):
    """``(P, 2)`` numbers of images in the set, fold after fold, and how many folds of equal size they make."""

    pairs_P2: Tensor
    folds: int


def read_pairs(path: Path, labels: NDArray[np.int64], names: Mapping[str, int]) -> PairList:
    """The pairs listed in ``path``; ``labels`` are those of the set's images, ``names`` the label of each name.

    ValueError naming the line where a name or an image is not in the set, or the list is not what its header says.
    """
    header, *lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines() or [""]
    counts = header.split()
    if len(counts) != 2 or not all(count.isdecimal() and int(count) > 0 for count in counts):
        raise ValueError(f"{path} begins with {header!r}: expected two numbers, folds and pairs of each kind in a fold")
    folds, pairs_of_a_kind = map(int, counts)
    images = _Images(labels, names)
    pairs = []
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        try:
            pairs.append(images.pair([field.strip() for field in (line.split("\t") if "\t" in line else line.split())]))
        except ValueError as error:
            raise ValueError(f"{path} line {number}: {error}") from error
    if len(pairs) != 2 * folds * pairs_of_a_kind:
        raise ValueError(
            f"{path} lists {len(pairs)} pairs: its header promises {2 * folds * pairs_of_a_kind}, {folds} folds of "
            f"{pairs_of_a_kind} pairs of one identity and as many of two"
        )
    return PairList(torch.tensor(pairs), folds)


class _Images:
    """Images of a set by the name of their identity and their place in it. Without names a label is its own name."""

    def __init__(self, labels: NDArray[np.int64], names: Mapping[str, int]) -> None:
        self._by_label = np.argsort(labels, kind="stable")
        self._labels = labels[self._by_label]
        self._names = names or {str(label): label for label in np.unique(labels).tolist()}

    def pair(self, fields: list[str]) -> tuple[int, int]:
        """The two images that a line names."""
        if len(fields) == 3:
            return self._image(fields[0], fields[1]), self._image(fields[0], fields[2])
        if len(fields) == 4:
            return self._image(fields[0], fields[1]), self._image(fields[2], fields[3])
        raise ValueError(f"{len(fields)} fields: expected NAME I J or NAME I OTHER J")

    def _image(self, name: str, place: str) -> int:
        if name not in self._names:
            raise ValueError(f"no identity of the set is called {name!r}")
        label = self._names[name]
        start, end = np.searchsorted(self._labels, [label, label + 1]).tolist()
        if not place.isdecimal() or not 1 <= int(place) <= end - start:
            raise ValueError(f"{name} has no image {place}: expected 1 to {end - start}")
        return int(self._by_label[start + int(place) - 1])
