"""What the embeddings of a training set say of it: wrong labels, one person under two names, pictures of a test set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_pipeline.checking.same_picture import is_same_picture
from data_pipeline.source import Source
from partial_fc.inference.centres import halves_cosines, judged, near_images, near_pairs, sums_of
from partial_fc.inference.embedding_file import EmbeddingFile

SHARE_OF_HALVES = 0.9  # are as near as two identities that are called one


class WrongLabel(NamedTuple):
    """An image that is nearer to another identity than to the rest of its own; cosines with both."""

    row: int
    label: int
    own: float
    other: float
    nearest: int


class OnePerson(NamedTuple):
    """Two labels, the smaller first, whose centres are near."""

    first: int
    second: int
    cosine: float


class Copy(NamedTuple):
    """A sample of the training set that shows the same picture as one of a test set."""

    sample: int
    test: Source
    test_sample: int


class Labelled(NamedTuple):
    """The embeddings of a set, and the labels that its rows have."""

    file: EmbeddingFile
    labels_N: Tensor
    num_classes: int


def wrong_labels(found: Labelled, margin: float) -> list[WrongLabel]:
    """The images nearer to another identity than to their own by more than ``margin``, the clearest first."""
    sums_CD = sums_of(found.file.blocks, found.labels_N, found.num_classes)
    own_N, other_N, nearest_N = judged(found.file.blocks, found.labels_N, sums_CD)
    difference_N = torch.nan_to_num(other_N - own_N, nan=-1)
    rows = torch.argsort(difference_N, descending=True, stable=True)[: int((difference_N > margin).sum())]
    columns = (rows, found.labels_N[rows], own_N[rows], other_N[rows], nearest_N[rows])
    return [WrongLabel(*each) for each in zip(*(column.tolist() for column in columns), strict=True)]


def is_trusted(found: Labelled, wrong: Sequence[WrongLabel]) -> Tensor:
    """``(N,)``: which images are none of ``wrong``."""
    trusted_N = torch.ones(len(found.labels_N), dtype=torch.bool)
    trusted_N[[each.row for each in wrong]] = False
    return trusted_N


def usual_cosine(found: Labelled, trusted_N: Tensor) -> float | None:
    """What the two halves of nine in ten identities reach, as a cosine; None where no identity has four images."""
    halves = halves_cosines(found.file.blocks, found.labels_N, found.num_classes, trusted_N)
    return float(np.quantile(halves.numpy(), 1 - SHARE_OF_HALVES)) if len(halves) else None


def same_people(found: Labelled, trusted_N: Tensor, least: float) -> list[OnePerson]:
    """The pairs of identities whose centres, of trusted images, have a cosine of ``least`` or more, nearest first."""
    sums_CD = sums_of(found.file.blocks, found.labels_N, found.num_classes, trusted_N)
    pairs, cosines = near_pairs(sums_CD, least)
    columns = (pairs[:, 0].tolist(), pairs[:, 1].tolist(), cosines.tolist())
    return [OnePerson(first, second, cosine) for first, second, cosine in zip(*columns, strict=True)]


def copies(
    found: EmbeddingFile, source: Source, tests: Sequence[tuple[EmbeddingFile, Source]], least: float
) -> list[Copy]:
    """The images of ``source`` that are pictures of a test set, by sample: near embeddings, then the same pixels."""
    samples, kept = found.origin.samples(), dict[int, Copy]()
    for file, test in tests:
        others, test_samples = np.concatenate([rows for _, rows in file.blocks()]), file.origin.samples()
        for row, other in near_images(found.blocks, torch.from_numpy(others), least):
            each = Copy(int(samples[row]), test, int(test_samples[other]))
            if each.sample not in kept and _is_copy(each, source):
                kept[each.sample] = each
    return [kept[sample] for sample in sorted(kept)]


def _is_copy(each: Copy, source: Source) -> bool:
    return is_same_picture(source.read(each.sample).tobytes(), each.test.read(each.test_sample).tobytes())
