"""Identities as the centres of their embeddings: which images are far from their own, and which centres are near.

N images, C identities, D dimensions. Rows come block by block, so that they may be more than memory holds; the sums of
all identities, ``(C, D)``, are held. A centre is a sum of unit rows, made a unit row itself where it is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from partial_fc.inference.model import Numbers

Blocks = Callable[[], Iterable[tuple[int, Numbers]]]
LEAST_IMAGES = 3  # of an identity whose images are judged: of two that differ, none is known to be the wrong one
_CLASSES = 16384  # compared at a time
_ROWS = 2048


class Judged(NamedTuple):
    """Of each image ``(N,)``: its cosine with its identity's other images, with the nearest other one, and which."""

    own_N: Tensor
    other_N: Tensor
    nearest_N: Tensor


def sums_of(blocks: Blocks, labels_N: Tensor, num_classes: int, is_counted_N: Tensor | None = None) -> Tensor:
    """``(C, D)``: the sum of the rows of each identity, of those that are counted; zeros where there are none."""
    sums_CD = torch.zeros(0, 0)
    for rows_bD, at in _rows(blocks):
        if not sums_CD.numel():
            sums_CD = rows_bD.new_zeros(num_classes, rows_bD.shape[1])
        if is_counted_N is not None:
            rows_bD = rows_bD * is_counted_N[at].unsqueeze(1)
        sums_CD.index_add_(0, labels_N[at], rows_bD)
    return sums_CD


def judged(blocks: Blocks, labels_N: Tensor, sums_CD: Tensor) -> Judged:
    """How each image lies to its own identity, without its own part in the centre, and to the nearest other one.

    The own cosine is nan for identities of fewer than three images, which say nothing of their images.
    """
    parts = []
    centres_CD, images_C = normalize(sums_CD), torch.bincount(labels_N, minlength=len(sums_CD))
    for rows_bD, at in _rows(blocks):
        labels_b = labels_N[at]
        others_bD = normalize(sums_CD[labels_b] - rows_bD)
        own_b = torch.where(images_C[labels_b] < LEAST_IMAGES, torch.nan, (rows_bD * others_bD).sum(1))
        parts.append((own_b, *_nearest_other(rows_bD, labels_b, centres_CD)))
    return Judged(*(torch.cat(each) for each in zip(*parts, strict=True)))


def halves_cosines(blocks: Blocks, labels_N: Tensor, num_classes: int, is_counted_N: Tensor) -> Tensor:
    """``(c,)``: the cosine between the centres of the two halves of each identity with four or more images.

    It says how near the centres of one and the same person are.
    """
    halves = _half_of_each(labels_N, is_counted_N)
    sums = [sums_of(blocks, labels_N, num_classes, halves == half) for half in (0, 1)]
    is_whole_C = torch.bincount(labels_N[is_counted_N], minlength=num_classes) >= 4
    return (normalize(sums[0]) * normalize(sums[1])).sum(1)[is_whole_C]


def near_pairs(sums_CD: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """The pairs of identities ``(P, 2)`` with a cosine of ``least`` or more between centres, and it ``(P,)``."""
    centres_CD = normalize(sums_CD)
    pairs, cosines = [torch.empty(0, 2, dtype=torch.int64)], [torch.empty(0)]
    for first in range(0, len(centres_CD), _ROWS):
        for start in range(first, len(centres_CD), _CLASSES):
            found = centres_CD[first : first + _ROWS] @ centres_CD[start : start + _CLASSES].T
            places = torch.nonzero(found >= least)
            cosine, place = found[places[:, 0], places[:, 1]], places + torch.tensor([first, start])
            is_new = place[:, 0] < place[:, 1]
            pairs.append(place[is_new])
            cosines.append(cosine[is_new])
    order = torch.argsort(torch.cat(cosines), descending=True, stable=True)
    return torch.cat(pairs)[order], torch.cat(cosines)[order]


def near_images(blocks: Blocks, others_MD: Tensor, least: float) -> Iterator[tuple[int, int]]:
    """Row of the blocks and row of ``others_MD`` of every pair of images with a cosine of ``least`` or more."""
    for rows_bD, at in _rows(blocks):
        for start in range(0, len(others_MD), _CLASSES):
            places = torch.nonzero(rows_bD @ others_MD[start : start + _CLASSES].T >= least)
            for row, other in places.tolist():
                yield at.start + row, start + other


def _nearest_other(rows_bD: Tensor, labels_b: Tensor, centres_CD: Tensor) -> tuple[Tensor, Tensor]:
    best_b, which_b = rows_bD.new_full((len(rows_bD),), -torch.inf), torch.zeros_like(labels_b)
    for start in range(0, len(centres_CD), _CLASSES):
        cosines = rows_bD @ centres_CD[start : start + _CLASSES].T
        here = (labels_b >= start) & (labels_b < start + cosines.shape[1])
        cosines[here, labels_b[here] - start] = -torch.inf
        value_b, place_b = cosines.max(1)
        which_b = torch.where(value_b > best_b, place_b + start, which_b)
        best_b = torch.maximum(best_b, value_b)
    return best_b, which_b


def _half_of_each(labels_N: Tensor, is_counted_N: Tensor) -> Tensor:
    """0 and 1 in turns over the counted images of each identity; -1 for the others."""
    counted = torch.nonzero(is_counted_N).flatten()
    order = counted[torch.argsort(labels_N[counted], stable=True)]
    places, sorted_labels = torch.arange(len(order)), labels_N[order]
    begins = torch.ones(len(order), dtype=torch.bool)
    begins[1:] = sorted_labels[1:] != sorted_labels[:-1]
    first = torch.cummax(torch.where(begins, places, 0), 0).values if len(order) else places
    halves = torch.full_like(labels_N, -1)
    halves[order] = (places - first) % 2
    return halves


def _rows(blocks: Blocks) -> Iterator[tuple[Tensor, slice]]:
    """A few thousand rows at a time, and where they stand."""
    for first, block in blocks():
        for start in range(0, len(block), _ROWS):
            rows = torch.from_numpy(block[start : start + _ROWS].copy())
            yield rows, slice(first + start, first + start + len(rows))
