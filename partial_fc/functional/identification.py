"""Identification: probes searched in a gallery, by exact scores and with memory for one tile.

P probes, G gallery rows, D dimensions, K kept scores. Scores are cosines on the grid of `pair_scores.py`, as bins, so
that equal scores are equal whatever tile they were made in. A tie never helps: a mate ranks behind every other identity
that scores as much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from partial_fc.functional.pair_scores import SCORE_BINS, STEPS_PER_UNIT, cosine_bins

NOTHING = -1  # in place of a score that does not exist
PROBES_PER_TILE, GALLERY_PER_TILE = 256, 16384
LARGEST_RANK = 50


class Search(NamedTuple):
    """What is known of each probe afterwards, in score bins, `NOTHING` where there is none.

    `mate_P` is the best score of the probe's own identity, `others_PK` the K best of other identities, descending.
    """

    mate_P: Int[Tensor, " P"]
    others_PK: Int[Tensor, "P K"]

    @property
    def mated_P(self) -> Tensor:
        """Which probes have a mate in the gallery."""
        return self.mate_P != NOTHING


def probe_share(probes: int, rank: int, size: int) -> slice:
    """The probes that `rank` of `size` searches: whole tiles, so that the number of ranks changes no digit."""
    tiles = -(-probes // PROBES_PER_TILE)
    first, end = (min(tiles * part // size * PROBES_PER_TILE, probes) for part in (rank, rank + 1))
    return slice(first, end)


def search(
    probe_PD: Float[Tensor, "P D"],
    gallery_GD: Float[Tensor, "G D"],
    probe_labels_P: Int[Tensor, " P"],
    gallery_labels_G: Int[Tensor, " G"],
    *,
    kept: int = LARGEST_RANK,
    excluded_P: Int[Tensor, " P"] | None = None,
) -> Search:
    """Every probe against the whole gallery, in one sweep over blocks; rows are of unit length.

    `excluded_P` is a gallery row that each probe is not compared with: itself, where probes are in the gallery.
    Costs D multiply-adds a pair in float64, and memory for a tile of 4 million scores whatever P and G are.
    """
    found = [_none_found(probe_PD, kept)]
    for probes in torch.split(torch.arange(len(probe_PD), device=probe_PD.device), PROBES_PER_TILE):
        mate_p = torch.full_like(probes, NOTHING, dtype=torch.int32)
        others_pK = mate_p[:, None].repeat(1, kept)
        for columns, bins_pg in _tiles(probe_PD[probes], gallery_GD):
            same_pg = probe_labels_P[probes, None] == gallery_labels_G[None, columns]
            if excluded_P is not None:
                itself_pg = excluded_P[probes, None] == torch.arange(columns.start, columns.stop, device=probes.device)
                bins_pg.masked_fill_(itself_pg, NOTHING)
            mate_p = torch.maximum(mate_p, bins_pg.masked_fill(~same_pg, NOTHING).amax(1))
            others_pK = _best(torch.cat([others_pK, bins_pg.masked_fill_(same_pg, NOTHING)], 1), kept)
        found.append(Search(mate_p, others_pK))
    mates, others = zip(*found, strict=True)
    return Search(torch.cat(mates), torch.cat(others))


def _none_found(probe_PD: Tensor, kept: int) -> Search:
    """The `Search` of no probe."""
    return Search(*(torch.empty(shape, dtype=torch.int32, device=probe_PD.device) for shape in ((0,), (0, kept))))


def matches(found: Search, ranks: int) -> Int[Tensor, " ranks"]:
    """How many probes have their mate among the best 1, 2, ... `ranks`; probes without a mate are left out.

    The mate's rank is 1 and the number of other identities' rows that score at least as much. ValueError where more
    ranks are asked for than scores were kept.
    """
    if not 1 <= ranks <= found.others_PK.shape[1]:
        raise ValueError(f"ranks = {ranks}: expected 1 to {found.others_PK.shape[1]}, the scores that the search kept")
    mate_M, others_MK = found.mate_P[found.mated_P], found.others_PK[found.mated_P]
    rank_M = 1 + (others_MK >= mate_M[:, None]).sum(1)
    return torch.bincount(rank_M, minlength=ranks + 1)[1 : ranks + 1].cumsum(0)


def cumulative_match(found: Search, ranks: int) -> list[float]:
    """The closed set's curve: `matches` as shares of the probes that have a mate. ValueError where none has."""
    mated = int(found.mated_P.sum())
    if not mated:
        raise ValueError("no probe has a mate in the gallery: there is no rank to count")
    return [count / mated for count in matches(found, ranks).tolist()]


def tpir_at_fpir(found: Search, fpir: float) -> tuple[float, float] | None:
    """(TPIR, threshold) in the open set at the lowest threshold whose FPIR is <= `fpir`, by counts.

    FPIR(t): the share of the probes without a mate that find somebody at a score >= t. TPIR(t): the share of the probes
    with a mate that find it at a score >= t, whatever its rank (NIST's 1 - FNIR without a limit on candidates). None
    where `fpir` cannot be counted: fewer than 1 / fpir probes have no mate. ValueError where none has a mate.
    """
    if not 0 < fpir <= 1:
        raise ValueError(f"fpir = {fpir}: expected a rate above 0 and at most 1")
    best_U, mate_M = found.others_PK[~found.mated_P, 0], found.mate_P[found.mated_P]
    if not len(mate_M):
        raise ValueError("no probe has a mate in the gallery: nothing can be found")
    allowed = math.floor(Fraction(repr(float(fpir))) * len(best_U))
    if allowed < 1:
        return None
    descending = best_U.sort(descending=True).values
    lowest = int(descending[allowed]) + 1 if allowed < len(best_U) else 0
    return int((mate_M >= lowest).sum()) / len(mate_M), lowest / STEPS_PER_UNIT - 1.0


def against_distractors(
    probe_PD: Float[Tensor, "P D"], distractor_GD: Float[Tensor, "G D"], *, kept: int = LARGEST_RANK
) -> tuple[Int[Tensor, "P K"], Int[Tensor, " bins"]]:
    """Each probe's best scores among people who are nobody's mate, descending, and the histogram of all P x G scores.

    One sweep, as `search`; the histogram is what `verification.roc` takes as impostors.
    """
    others_PK = torch.full((len(probe_PD), kept), NOTHING, dtype=torch.int32, device=probe_PD.device)
    counts = torch.zeros(SCORE_BINS, dtype=torch.int64, device=probe_PD.device)
    for probes in torch.split(torch.arange(len(probe_PD), device=probe_PD.device), PROBES_PER_TILE):
        for _, bins_pg in _tiles(probe_PD[probes], distractor_GD):
            found = torch.bincount(bins_pg.flatten())
            counts[: len(found)] += found
            others_PK[probes] = _best(torch.cat([others_PK[probes], bins_pg], 1), kept)
    return others_PK, counts


def _tiles(rows_pD: Tensor, gallery_GD: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The scores of some rows with the gallery, block by block."""
    rows_pD = rows_pD.double()
    for start in range(0, len(gallery_GD), GALLERY_PER_TILE):
        columns = slice(start, min(start + GALLERY_PER_TILE, len(gallery_GD)))
        yield columns, cosine_bins(rows_pD @ gallery_GD[columns].double().T)


def _best(bins_pg: Tensor, kept: int) -> Tensor:
    """The best scores of each row, descending."""
    return bins_pg.topk(kept, dim=1).values
