"""Lists of image pairs in the manner of LFW's ``pairs.txt``, for accuracy over folds.

::

    10  300                 folds, and pairs of each kind in a fold
    Abel_Pacheco  1  4      the first and the fourth image of one identity
    Abdel_Madi  1  Dean  2  an image of each of two

Fields are separated by tabs, or by blanks in a line without tabs. Where every file of the set is called after its
identity and a number, ``Abel_Pacheco/Abel_Pacheco_0004.jpg``, that number is meant: a folder that lacks an image then
lacks it, and the images behind it stay who they are. Elsewhere images count from 1 within their identity, in the order
in which they were packed: that of the file names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.source import Source


class PairList(NamedTuple):
    """``(P, 2)`` numbers of images in the set, and the fold of each pair."""

    pairs_P2: Tensor
    fold_P: Tensor


def read_pairs(
    path: Path, labels: NDArray[np.int64], names: Mapping[str, int], numbers: NDArray[np.int64] | None = None
) -> PairList:
    """The pairs listed in ``path``; ``labels`` are those of the set's images, ``names`` the label of each name.

    ``numbers`` are those in the images' file names, where they have some; see :func:`file_numbers`. ValueError naming
    the line where a name or an image is not in the set, or the list is not what its header says, or has one fold.
    """
    header, *lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines() or [""]
    counts = header.split()
    if len(counts) != 2 or not all(count.isdecimal() and int(count) > 0 for count in counts):
        raise ValueError(f"{path} begins with {header!r}: expected two numbers, folds and pairs of each kind in a fold")
    folds, pairs_of_a_kind = map(int, counts)
    if folds < 2:
        raise ValueError(f"{path} has one fold: expected at least 2, as a fold's threshold is chosen on the others")
    images = _Images(labels, names, _places(labels) if numbers is None else numbers)
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
    return PairList(torch.tensor(pairs), torch.arange(folds).repeat_interleave(2 * pairs_of_a_kind))


def file_numbers(source: Source, names: Mapping[str, int]) -> NDArray[np.int64] | None:
    """The number in the name of every image's file, ``NAME_0004.jpg``; None where a file is not called so."""
    called = {label: name for name, label in names.items()}
    numbers = np.empty(len(source), np.int64)
    for sample, label in enumerate(source.labels.tolist()):
        found = re.fullmatch(re.escape(called.get(label, "")) + r"_(\d{1,9})", Path(source.name(sample)).stem)
        if found is None:
            return None
        numbers[sample] = int(found[1])
    return numbers


def _places(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each image's place among those of its label, from 1."""
    order = np.argsort(labels, kind="stable")
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    places = np.empty_like(labels)
    places[order] = np.arange(labels.size) - np.repeat(first, counts) + 1
    return places


class _Images:
    """Images of a set by the name of their identity and their number in it. Without names a label is its own name."""

    def __init__(self, labels: NDArray[np.int64], names: Mapping[str, int], numbers: NDArray[np.int64]) -> None:
        self._by_label = np.lexsort((numbers, labels))
        self._labels, self._numbers = labels[self._by_label], numbers[self._by_label]
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
        numbers = self._numbers[start:end]
        at = np.flatnonzero(numbers == int(place)) if place.isdecimal() else np.empty(0, np.int64)
        if at.size != 1:
            raise ValueError(
                f"{name} has {'no' if not at.size else 'more than one'} image {place}: {_expected(numbers)}"
            )
        return int(self._by_label[start + int(at[0])])


def _expected(numbers: NDArray[np.int64]) -> str:
    """Which images there are."""
    shown = ", ".join(map(str, numbers[:10].tolist())) + (", ..." if numbers.size > 10 else "")
    is_gapless = numbers.size and numbers[-1] - numbers[0] + 1 == np.unique(numbers).size == numbers.size
    return f"expected {numbers[0]} to {numbers[-1]}" if is_gapless else f"the set has {shown or 'none'}"
