"""IJB's two protocols from templates: 1:1 over a list of pairs, and 1:N in two galleries.

T templates, D dimensions, P pairs, G gallery templates, Q probes. "Open" means that a probe may have no mate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from partial_fc.evaluation import LARGEST_CMC
from partial_fc.functional import verification
from partial_fc.functional.identification import Search, cumulative_match, probe_share, search, tpir_at_fpir
from partial_fc.functional.listed_pairs import listed_bins
from partial_fc.functional.pair_scores import SCORE_BINS
from partial_fc.functional.rates import check_unit_rows, named_points, pair_counts, rates
from partial_fc.world import World

FPIRS = ("1e-1", "1e-2")
RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Verification:
    """1:1 measures; the fields are those of `Evaluation`, counted over the pairs of a list."""

    tar_at_far: dict[str, float]
    threshold_at_far: dict[str, float]
    eer: float
    eer_threshold: float
    best_accuracy: float
    best_accuracy_threshold: float
    counts: dict[str, int]
    roc: list[tuple[float, float, float]]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers."""
        return {**vars(self), "roc": named_points(self.roc)}


@dataclass(frozen=True)
class Identification:
    """1:N measures of one gallery, or the means over several.

    `rank` is the closed set: the share of the probes that have a mate whose mate is among the best k. `tpir_at_fpir` is
    the open set, of the FPIRs that the probes without a mate can resolve. `cmc` is `rank` for 1, 2, ... as far as it is
    drawn.
    """

    rank: dict[int, float]
    tpir_at_fpir: dict[str, float]
    threshold_at_fpir: dict[str, float]
    cmc: list[float]
    counts: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers."""
        return {**vars(self), "rank": {str(rank): share for rank, share in self.rank.items()}}


PairChunk = tuple[Tensor, Tensor, Tensor]


def verify_templates(unit_TD: Float[Tensor, "T D"], chunks: Iterable[PairChunk], world: World) -> Verification:
    """TAR at FAR over pairs of templates, which come as chunks of (row, row, same), each (P,), this rank's share.

    Memory for one chunk and the histograms, however many pairs there are; a chunk of millions of pairs is scored by
    products of blocks of rows, see `listed_bins`. Talks: one all-reduce of 34 MB of counts.
    ValueError, on every rank alike, for rows that are not finite and of unit length, and without pairs of both kinds.
    """
    check_unit_rows(unit_TD)
    counts = torch.zeros(2, SCORE_BINS, dtype=torch.int64, device=unit_TD.device)
    for first_P, second_P, same_P in chunks:
        bins_P = listed_bins(unit_TD, first_P, second_P)
        for kind, chosen_P in enumerate((same_P, ~same_P)):
            counts[kind] += torch.bincount(bins_P[chosen_P], minlength=SCORE_BINS)
    points = verification.roc(*world.all_sum(counts))
    return Verification(**rates(points), counts={"templates": len(unit_TD), **pair_counts(points)})


def identify(
    probe_QD: Float[Tensor, "Q D"],
    gallery_GD: Float[Tensor, "G D"],
    probe_subject_Q: Int[Tensor, " Q"],
    gallery_subject_G: Int[Tensor, " G"],
    world: World,
) -> Identification:
    """Every probe in one gallery, closed and open set; see `search`, `cumulative_match` and `tpir_at_fpir`.

    Each rank searches its share of the probes. Talks: one gather of 21 integers a probe. ValueError for rows that are
    not finite and of unit length, and where no probe has a mate.
    """
    check_unit_rows(torch.cat([probe_QD, gallery_GD]))
    mine = probe_share(len(probe_QD), world.rank, world.size)
    found = search(probe_QD[mine], gallery_GD, probe_subject_Q[mine], gallery_subject_G, kept=LARGEST_CMC)
    found = Search(*map(world.gather_rows, found))
    cmc = cumulative_match(found, LARGEST_CMC)
    at_fpir = {fpir: point for fpir in FPIRS if (point := tpir_at_fpir(found, float(fpir))) is not None}
    mated = int(found.mated_P.sum())
    return Identification(
        rank={rank: cmc[rank - 1] for rank in RANKS},
        tpir_at_fpir={fpir: tpir for fpir, (tpir, _) in at_fpir.items()},
        threshold_at_fpir={fpir: threshold for fpir, (_, threshold) in at_fpir.items()},
        cmc=cmc,
        counts={"gallery": len(gallery_GD), "probes_with_mate": mated, "probes_without": len(probe_QD) - mated},
    )


def mean_of_galleries(found: Mapping[str, Identification]) -> Identification:
    """The protocol's figure: the plain mean over the galleries of what all of them can resolve; counts are added."""
    parts = list(found.values())

    def mean(shares: Iterable[float]) -> float:
        return sum(shares) / len(parts)

    fpirs = [fpir for fpir in FPIRS if all(fpir in part.tpir_at_fpir for part in parts)]
    return Identification(
        rank={rank: mean(part.rank[rank] for part in parts) for rank in RANKS},
        tpir_at_fpir={fpir: mean(part.tpir_at_fpir[fpir] for part in parts) for fpir in fpirs},
        threshold_at_fpir={},  # each gallery has its own
        cmc=[mean(column) for column in zip(*(part.cmc for part in parts), strict=True)],
        counts={name: sum(part.counts[name] for part in parts) for name in parts[0].counts},
    )
