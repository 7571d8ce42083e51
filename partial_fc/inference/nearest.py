"""The identities nearest to an image, exactly, among embeddings that come block by block.

A block is compared by one product in float32, or by FAISS. That only chooses who may be among the nearest: the
cosines that count are sums in float64, the same for the same row wherever it stands. So neither the size of a block nor
the library changes a digit or an order, and of two images at the same cosine the earlier one is nearer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from partial_fc.inference.model import Numbers

Integers = NDArray[np.int64]
Chosen = Callable[[Numbers, Integers, Numbers, int], Sequence[Integers]]
MARGIN = 1e-3  # far more than two products of unit rows in float32 differ by
_FIRST_ASKED = 4  # images for each identity wanted


class Neighbours(NamedTuple):
    """The nearest identities, nearest first: row and label of the best image of each, and its cosine; all ``(k,)``."""

    rows: Integers
    labels: Integers
    cosines: NDArray[np.float64]


def nearest_identities(
    queries_QD: Numbers, blocks: Iterable[tuple[int, Numbers]], labels_N: Integers, nearest: int, chosen: Chosen
) -> list[Neighbours]:
    """The ``nearest`` identities of each query, fewer where there are fewer.

    ``blocks`` are unit rows, each with the number of its first; ``chosen`` is :func:`by_product` or :func:`by_faiss`.
    One block is held at a time. ValueError for ``nearest`` below 1 or rows of another length.
    """
    if nearest < 1:
        raise ValueError(f"the nearest {nearest} identities: expected 1 or more")
    none = Neighbours(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    found = [none for _ in queries_QD]
    for first, block in blocks:
        if block.shape[1] != queries_QD.shape[1]:
            raise ValueError(f"rows of {block.shape[1]} numbers cannot be compared with one of {queries_QD.shape[1]}")
        labels_b = labels_N[first : first + len(block)]
        for at, places in enumerate(chosen(block, labels_b, queries_QD, nearest)):
            cosines = (block[places].astype(np.float64) * queries_QD[at]).sum(1)
            here = Neighbours(places + first, labels_b[places], cosines)
            found[at] = _best([found[at], here], nearest)
    return found


def _best(parts: Sequence[Neighbours], nearest: int) -> Neighbours:
    """The best image of each identity of all ``parts``, of the nearest ones."""
    rows, labels, cosines = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.lexsort((rows, -cosines))
    best = order[_first_of_each(labels[order])[:nearest]]
    return Neighbours(rows[best], labels[best], cosines[best])


def _first_of_each(labels: Integers) -> Integers:
    """Where each label comes first, ascending."""
    return np.asarray(np.sort(np.unique(labels, return_index=True)[1]), np.int64)


def by_product(block: Numbers, labels_b: Integers, queries_QD: Numbers, nearest: int) -> list[Integers]:
    """The places in ``block`` that may be among the nearest identities of each query, by one matrix product."""
    everywhere = np.arange(len(block))
    return [_likely(cosines, everywhere, labels_b, nearest) for cosines in queries_QD @ block.T]


def by_faiss(block: Numbers, labels_b: Integers, queries_QD: Numbers, nearest: int) -> list[Integers]:
    """The same by FAISS's exact index of inner products. ValueError where FAISS is not installed."""
    index = faiss().IndexFlatIP(block.shape[1])
    index.add(block)
    asked, waiting = nearest * _FIRST_ASKED, np.arange(len(queries_QD))
    found = [np.empty(0, np.int64) for _ in queries_QD]
    while len(waiting):
        asked = min(asked, len(block))
        cosines, places = index.search(queries_QD[waiting], asked)
        for query, of_query, at in zip(waiting.tolist(), cosines, places, strict=True):
            found[query] = np.sort(_likely(of_query, at, labels_b, nearest))
        # All that were asked for are likely: then there may be more.
        waiting = waiting[[len(found[query]) == asked < len(block) for query in waiting.tolist()]]
        asked *= _FIRST_ASKED
    return found


def _likely(cosines: Numbers, places: Integers, labels_b: Integers, nearest: int) -> Integers:
    """Those ``places`` whose cosines are not clearly below that of the last identity wanted."""
    order = np.argsort(-cosines, kind="stable")
    first = _first_of_each(labels_b[places[order]])
    if len(first) < nearest:
        return places
    least = cosines[order[first[nearest - 1]]] - MARGIN
    return np.asarray(places[cosines >= least], np.int64)


def has_faiss() -> bool:
    """Whether FAISS is installed."""
    try:
        faiss()
    except ValueError:
        return False
    return True


def faiss() -> Any:
    """The module ``faiss``. ValueError that says how to get it where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of SWIG's own types
            import faiss
    except ImportError as error:
        raise ValueError("--faiss needs the package faiss-cpu: pip install 'partial-fc[search]'") from error
    return faiss
