"""Every pair of N embeddings, scored once: two integer histograms and each image's nearest neighbour.

N images, D embedding dimensions; `unit_ND` are rows of length one, `labels_N` their identities. A pair is genuine
when its two labels are equal and an impostor pair otherwise.

A score is a cosine, taken in float64 and rounded to 2^-20 (1e-6; an embedding stored in float32 is itself off by
about 1e-7). So 2^21 + 1 bins hold every score there is, and the histograms are not an approximation of the scores
but the scores themselves: they add over tiles and over ranks, and all that `verification.py` computes from them is
exact. A tile's place depends on N alone, never on the number of ranks, so each pair meets the same float operations
wherever it is computed and the sums agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

STEPS_PER_UNIT = 2**20
SCORE_BINS = 2 * STEPS_PER_UNIT + 1
ROWS_PER_TILE, COLUMNS_PER_TILE = 512, 4096  # 2 million pairs, about 60 MB of scratch


class PairScores(NamedTuple):
    """What a set of pairs adds up to: histograms add over ranks, `nearest_N` combines by the element-wise maximum.

    `nearest_N` is `2·bin + 1` of an image's best-scoring partner when that is another identity's, `2·bin` when it is
    its own, -1 where it was in no pair. An impostor outranks a genuine partner of equal score, so a tie is a miss.
    """

    genuine: Int[Tensor, " bins"]  # bin k counts the pairs of cosine k / 2^20 - 1
    impostor: Int[Tensor, " bins"]
    nearest_N: Int[Tensor, " N"]


def triangle_share(images: int, rank: int, size: int) -> list[range]:
    """The blocks of rows whose pairs `rank` of `size` scores; over all ranks each row once.

    Row i is paired with the rows after it, so early blocks are long and late ones short: they are dealt out forwards
    and then backwards (0 1 2 2 1 0 0 1 2 ...), which gives every rank the same work to within one block.
    """
    starts = range(0, images, ROWS_PER_TILE)
    turns = (turn % (2 * size) for turn in range(len(starts)))
    owners = [min(turn, 2 * size - 1 - turn) for turn in turns]
    return [
        range(start, min(start + ROWS_PER_TILE, images))
        for start, owner in zip(starts, owners, strict=True)
        if owner == rank
    ]


def pair_scores(unit_ND: Float[Tensor, "N D"], labels_N: Int[Tensor, " N"], row_blocks: Iterable[range]) -> PairScores:
    """The scores of all pairs (i, j), i < j, with i in `row_blocks`, in one sweep over the upper triangle.

    Costs D multiply-adds a pair and memory for one tile and the histograms, whatever N is. An embedding of zero length
    scores 0 with everything; one that is not finite is the caller's to refuse.
    """
    device = unit_ND.device
    every = torch.zeros(SCORE_BINS, dtype=torch.int64, device=device)
    genuine = torch.zeros_like(every)
    nearest_N = torch.full((len(unit_ND),), -1, dtype=torch.int32, device=device)
    for rows, columns in _tiles(row_blocks, len(unit_ND)):
        bins_nn = cosine_bins(_cosines(unit_ND, rows, columns))
        impostor_nn = labels_N[rows, None] != labels_N[None, columns]
        ranking_nn = 2 * bins_nn + impostor_nn
        if rows == columns:
            above_nn = torch.ones_like(impostor_nn).triu_(1)
            ranking_nn.masked_fill_(~above_nn, -1)
            bins_nn, impostor_nn = bins_nn[above_nn], impostor_nn[above_nn]
        counts = torch.bincount(bins_nn.flatten())
        every[: len(counts)] += counts
        # Genuine pairs are few: adding them one by one is cheaper than a second dense histogram of every tile.
        genuine_bins = bins_nn[~impostor_nn].long()
        genuine.scatter_add_(0, genuine_bins, torch.ones_like(genuine_bins))
        nearest_N[rows] = torch.maximum(nearest_N[rows], ranking_nn.amax(1))
        nearest_N[columns] = torch.maximum(nearest_N[columns], ranking_nn.amax(0))
    return PairScores(genuine, every - genuine, nearest_N)


def rank1_hits(nearest_N: Int[Tensor, " N"], labels_N: Int[Tensor, " N"]) -> tuple[int, int]:
    """(hits, probes) of leave-one-out identification: each image against all others.

    A probe is an image whose identity has another one; the rest only stand in the gallery as distractors. A hit is a
    probe whose highest score is its own identity's alone: a tie with another identity is a miss, so that embeddings
    which are all equal score nothing.
    """
    _, identity_N, images = torch.unique(labels_N, return_inverse=True, return_counts=True)
    probe_N = images[identity_N] > 1
    hit_N = probe_N & (nearest_N >= 0) & (nearest_N % 2 == 0)
    return int(hit_N.sum()), int(probe_N.sum())


def pair_cosines(
    unit_ND: Float[Tensor, "N D"], first_P: Int[Tensor, " P"], second_P: Int[Tensor, " P"]
) -> Float[Tensor, " P"]:
    """The rounded float64 scores of P listed pairs, on the same grid as the histograms."""
    chunks = zip(torch.split(first_P, COLUMNS_PER_TILE), torch.split(second_P, COLUMNS_PER_TILE), strict=True)
    cosines = [(unit_ND[first].double() * unit_ND[second].double()).sum(1) for first, second in chunks]
    return cosine_bins(torch.cat(cosines)).double() / STEPS_PER_UNIT - 1.0


def _tiles(row_blocks: Iterable[range], images: int) -> Iterator[tuple[slice, slice]]:
    """The tiles of each block of rows: the square on the diagonal, then the columns to its right."""
    for block in row_blocks:
        rows = slice(block.start, block.stop)
        yield rows, rows
        for start in range(block.stop, images, COLUMNS_PER_TILE):
            yield rows, slice(start, min(start + COLUMNS_PER_TILE, images))


def _cosines(unit_ND: Tensor, rows: slice, columns: slice) -> Tensor:
    """One tile of cosines in float64, which no TF32 or bfloat16 setting made for training can reach."""
    return unit_ND[rows].double() @ unit_ND[columns].double().T


def cosine_bins(cosines: Tensor) -> Tensor:
    """The bin of each float64 cosine, int32: `SCORE_BINS` are all there are."""
    return cosines.mul(STEPS_PER_UNIT).round_().clamp_(-STEPS_PER_UNIT, STEPS_PER_UNIT).int().add_(STEPS_PER_UNIT)
