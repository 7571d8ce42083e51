"""Embeddings of held-out identities and what they are worth: exact measures over all pairs, shared out over the ranks.

Legend: N images of all ranks, n this rank's; D embedding dimensions; P listed pairs; K operating points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from partial_fc.functional import verification
from partial_fc.functional.genuine_pairs import genuine_pairs
from partial_fc.functional.identification import Search, cumulative_match, probe_share, search
from partial_fc.functional.pair_scores import (
    SCORE_BINS,
    STEPS_PER_UNIT,
    PairScores,
    pair_cosines,
    pair_scores,
    rank1_hits,
    triangle_share,
)
from partial_fc.functional.quality import error_against_rejection
from partial_fc.functional.rates import FARS, check_unit_rows, named_points, pair_counts, rates
from partial_fc.world import World

FOLDS = 10  # of a list of pairs that names none
LARGEST_CMC, MOST_PROBES = 20, 20_000
MOST_OF_IDENTITY, MOST_PAIRS = 64, 200_000


@dataclass(frozen=True)
class Evaluation:
    """The measures of one set of embeddings; `verification.py` and `rank1_hits` define each of them.

    `tar_at_far` and `threshold_at_far` hold the FARs, as text, that the number of impostor pairs can resolve.
    `roc` is (threshold, FAR, TAR); the histograms are equal bins over cosines from -1 to 1.
    `kfold_accuracy` is there where a list of pairs was given. `cmc` is `rank1` for the best 1 to 20, of up to 20,000
    probes spread evenly. `rejection` is (share of genuine pairs rejected, share of the rest below the operating
    threshold), the pairs of the shortest embeddings rejected first; empty where lengths are not known.
    """

    rank1: float
    eer: float
    eer_threshold: float
    best_accuracy: float
    best_accuracy_threshold: float
    tar_at_far: dict[str, float]
    threshold_at_far: dict[str, float]
    kfold_accuracy: verification.FoldAccuracy | None
    counts: dict[str, int]
    roc: list[tuple[float, float, float]]
    genuine_histogram: list[int]
    impostor_histogram: list[int]
    cmc: list[float]
    rejection: list[tuple[float, float]]

    @property
    def operating_far(self) -> str | None:
        """The FAR at which the report says "accepted": 1e-3, else the smallest above it that can be counted."""
        return _operating_far(self.tar_at_far)

    @property
    def operating_threshold(self) -> float:
        """The threshold of `operating_far`; with fewer than ten impostor pairs that of the equal error rate."""
        return _operating_threshold(vars(self))

    def to_json(self) -> dict[str, Any]:
        """What `evaluation.json` holds: plain dictionaries, lists and numbers, the measures first."""
        return {
            "rank1": self.rank1,
            "eer": self.eer,
            "eer_threshold": self.eer_threshold,
            "best_accuracy": self.best_accuracy,
            "best_accuracy_threshold": self.best_accuracy_threshold,
            "tar_at_far": self.tar_at_far,
            "threshold_at_far": self.threshold_at_far,
            **({"kfold_accuracy": self.kfold_accuracy._asdict()} if self.kfold_accuracy else {}),
            "cmc": self.cmc,
            "rejection": [list(point) for point in self.rejection],
            "counts": self.counts,
            "roc": named_points(self.roc),
            "histograms": {"range": [-1, 1], "genuine": self.genuine_histogram, "impostor": self.impostor_histogram},
        }


@dataclass(frozen=True)
class PairEvaluation:
    """The measures of listed pairs, where nothing is known of the images but which pairs are of one identity.

    As in `Evaluation`, with rates over the P pairs listed; `kfold_accuracy` is the figure that the field prints.
    """

    kfold_accuracy: verification.FoldAccuracy
    eer: float
    eer_threshold: float
    best_accuracy: float
    best_accuracy_threshold: float
    tar_at_far: dict[str, float]
    threshold_at_far: dict[str, float]
    counts: dict[str, int]
    roc: list[tuple[float, float, float]]
    rejection: list[tuple[float, float]]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers, by the names they have in `Evaluation.to_json`."""
        rejection = [list(point) for point in self.rejection]
        return {
            **vars(self),
            "rejection": rejection,
            "kfold_accuracy": self.kfold_accuracy._asdict(),
            "roc": named_points(self.roc),
        }


def evaluate(
    unit_ND: Float[Tensor, "N D"],
    labels_N: Int[Tensor, " N"],
    world: World,
    pairs_P2: Int[Tensor, "P 2"] | None = None,
    fold_P: Int[Tensor, " P"] | None = None,
    norm_N: Float[Tensor, " N"] | None = None,
) -> Evaluation:
    """The measures of all embeddings, the same on every rank and to the last bit for every number of ranks.

    Every rank gives the same N unit rows (`gathered`) and scores its share of the N (N - 1) / 2 pairs; `pairs_P2` are
    rows, in the folds `fold_P` or in ten equal ones; `norm_N` are the lengths that the rows had.
    Talks: one all-reduce of 34 MB of counts, one gather of N integers a rank, one of 21 integers a probe.
    Raises ValueError, on every rank alike, where embeddings are not finite unit rows or where there is no genuine or no
    impostor pair.
    """
    check_unit_rows(unit_ND)
    scores = _summed(pair_scores(unit_ND, labels_N, triangle_share(len(unit_ND), world.rank, world.size)), world)
    points = verification.roc(scores.genuine, scores.impostor)
    kfold = None
    if pairs_P2 is not None:
        first_P, second_P = pairs_P2.to(unit_ND.device).unbind(1)
        same_P = labels_N[first_P] == labels_N[second_P]
        kfold = verification.kfold_accuracy(
            pair_cosines(unit_ND, first_P, second_P), same_P, _folds(fold_P, len(same_P))
        )
    hits, probes = rank1_hits(scores.nearest_N, labels_N)
    found = rates(points)
    return Evaluation(
        **found,
        rank1=hits / probes,
        kfold_accuracy=kfold,
        counts={
            "identities": len(torch.unique(labels_N)),
            "images": len(labels_N),
            "rank1_probes": probes,
            "rank1_hits": hits,
            **pair_counts(points),
        },
        genuine_histogram=verification.coarse_histogram(scores.genuine),
        impostor_histogram=verification.coarse_histogram(scores.impostor),
        cmc=_leave_one_out(unit_ND, labels_N, world),
        rejection=_rejection(unit_ND, _some_genuine_pairs(labels_N), norm_N, _operating_threshold(found)),
    )


def evaluate_pairs(
    unit_ND: Float[Tensor, "N D"],
    pairs_P2: Int[Tensor, "P 2"],
    same_P: Bool[Tensor, " P"],
    fold_P: Int[Tensor, " P"] | None = None,
    norm_N: Float[Tensor, " N"] | None = None,
) -> PairEvaluation:
    """The measures of P pairs of rows, `same_P` saying which are genuine, in the folds `fold_P` or in ten equal ones.

    Talks to no other rank: each may compute all of it from the gathered rows. ValueError like `evaluate`, and where
    there are fewer pairs than folds.
    """
    check_unit_rows(unit_ND)
    same_P = same_P.to(unit_ND.device)
    cos_P = pair_cosines(unit_ND, *pairs_P2.to(unit_ND.device).unbind(1))
    points = verification.roc(_histogram(cos_P[same_P]), _histogram(cos_P[~same_P]))
    found = rates(points)
    return PairEvaluation(
        **found,
        kfold_accuracy=verification.kfold_accuracy(cos_P, same_P, _folds(fold_P, len(cos_P))),
        counts={"images": len(unit_ND), **pair_counts(points)},
        rejection=_rejection(unit_ND, pairs_P2.to(unit_ND.device)[same_P], norm_N, _operating_threshold(found)),
    )


def _folds(fold_P: Tensor | None, pairs: int) -> Tensor:
    return verification.consecutive_folds(pairs, FOLDS) if fold_P is None else fold_P


def _operating_far(tar_at_far: dict[str, float]) -> str | None:
    countable = [far for far in FARS[:3] if far in tar_at_far]
    return countable[-1] if countable else None


def _operating_threshold(found: dict[str, Any]) -> float:
    far = _operating_far(found["tar_at_far"])
    return float(found["eer_threshold"] if far is None else found["threshold_at_far"][far])


def _leave_one_out(unit_ND: Tensor, labels_N: Tensor, world: World) -> list[float]:
    """The cumulative match of images against all others, for some of those that have a mate."""
    _, identity_N, images = torch.unique(labels_N, return_inverse=True, return_counts=True)
    probes = (images[identity_N] > 1).nonzero().flatten()
    probes = probes[:: -(-len(probes) // MOST_PROBES)]
    mine = probes[probe_share(len(probes), world.rank, world.size)]
    found = search(unit_ND[mine], unit_ND, labels_N[mine], labels_N, kept=LARGEST_CMC, excluded_P=mine)
    return cumulative_match(Search(*map(world.gather_rows, found)), LARGEST_CMC)


def _some_genuine_pairs(labels_N: Tensor) -> Tensor:
    """All of them, or up to 200,000 spread evenly, of up to 64 images of an identity."""
    pairs_P2 = genuine_pairs(labels_N, most_of_label=MOST_OF_IDENTITY)
    return pairs_P2[:: -(-len(pairs_P2) // MOST_PAIRS)] if len(pairs_P2) else pairs_P2


def _rejection(unit_ND: Tensor, pairs_P2: Tensor, norm_N: Tensor | None, threshold: float) -> list[tuple[float, float]]:
    if norm_N is None or not len(pairs_P2):
        return []
    first_P, second_P = pairs_P2.unbind(1)
    wrong_P = pair_cosines(unit_ND, first_P, second_P) < threshold
    return error_against_rejection(wrong_P, torch.minimum(norm_N[first_P], norm_N[second_P]))


def _histogram(cos_P: Tensor) -> Tensor:
    """Scores on the grid of `pair_scores`, counted bin by bin."""
    return torch.bincount(((cos_P + 1.0) * STEPS_PER_UNIT).round().long(), minlength=SCORE_BINS)


def _summed(scores: PairScores, world: World) -> PairScores:
    genuine, impostor = world.all_sum(torch.stack([scores.genuine, scores.impostor]))
    return PairScores(genuine, impostor, world.all_gather(scores.nearest_N).amax(0))
