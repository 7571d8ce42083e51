"""MegaFace's two challenges: probes of known people among distractors, who are nobody's mate.

P probes, G distractors, M ordered pairs of one person's probes, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from partial_fc.evaluation import LARGEST_CMC
from partial_fc.functional import verification
from partial_fc.functional.genuine_pairs import genuine_pairs
from partial_fc.functional.identification import Search, against_distractors, matches, probe_share
from partial_fc.functional.pair_scores import SCORE_BINS, cosine_bins, pair_cosines
from partial_fc.functional.rates import check_unit_rows, named_points, pair_counts, rates
from partial_fc.protocols.templates import RANKS
from partial_fc.world import World

AT_A_TIME = 2**18


@dataclass(frozen=True)
class AmongDistractors:
    """Rank-k and verification among the distractors, in the manner of MegaFace.

    `rank`: of all ordered pairs of two pictures of one person, the share where the second is among the best k of the
    first's scores with it and all distractors. Verification: genuine are the pairs of one person's probes, impostor
    all pairs of a probe and a distractor. `counts` has how many of these have a cosine of 1: the same picture in both.
    """

    rank: dict[int, float]
    tar_at_far: dict[str, float]
    threshold_at_far: dict[str, float]
    eer: float
    eer_threshold: float
    best_accuracy: float
    best_accuracy_threshold: float
    cmc: list[float]
    counts: dict[str, int]
    roc: list[tuple[float, float, float]]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers."""
        named = {str(rank): share for rank, share in self.rank.items()}
        return {**vars(self), "rank": named, "roc": named_points(self.roc)}


def among_distractors(
    probe_PD: Float[Tensor, "P D"], labels_P: Int[Tensor, " P"], distractor_GD: Float[Tensor, "G D"], world: World
) -> AmongDistractors:
    """The measures of all probes among all distractors; a person with one picture has no pair and only adds impostors.

    Each rank sweeps its share of the probes over all distractors: P G D / ranks multiply-adds. Talks: one all-reduce of
    17 MB of counts, one gather of 20 integers a probe. ValueError, on every rank alike, for rows that are not finite
    and of unit length, and where no person has two probes or there is no distractor.
    """
    check_unit_rows(probe_PD)
    check_unit_rows(distractor_GD)
    mine = probe_share(len(probe_PD), world.rank, world.size)
    others_pK, impostor = against_distractors(probe_PD[mine], distractor_GD, kept=LARGEST_CMC)
    others_PK, impostor = world.gather_rows(others_pK), world.all_sum(impostor)
    pairs_M2 = genuine_pairs(labels_P)
    mate_M = torch.cat(
        [cosine_bins(pair_cosines(probe_PD, *some.unbind(1))) for some in torch.split(pairs_M2, AT_A_TIME)]
    )
    points = verification.roc(torch.bincount(mate_M.long(), minlength=SCORE_BINS), impostor)
    hits = torch.zeros(LARGEST_CMC, dtype=torch.int64, device=probe_PD.device)
    for probe_M in pairs_M2.unbind(1):
        for some in torch.split(torch.arange(len(probe_M), device=probe_M.device), AT_A_TIME):
            hits += matches(Search(mate_M[some], others_PK[probe_M[some]]), LARGEST_CMC)
    cmc = [count / (2 * len(pairs_M2)) for count in hits.tolist()]
    return AmongDistractors(
        **rates(points),
        rank={rank: cmc[rank - 1] for rank in RANKS},
        cmc=cmc,
        counts={
            "probes": len(probe_PD),
            "distractors": len(distractor_GD),
            **pair_counts(points),
            "impostor_pairs_of_cosine_1": int(impostor[-1]),
        },
    )
