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
from partial_fc.functional.pair_scores import (
    SCORE_BINS,
    STEPS_PER_UNIT,
    PairScores,
    pair_cosines,
    pair_scores,
    rank1_hits,
    triangle_share,
)
from partial_fc.world import World

FOLDS = 10  # of a list of pairs that names none
FARS = ("1e-1", "1e-2", "1e-3", "1e-4", "1e-5", "1e-6")


@dataclass(frozen=True)
class Evaluation:
    """The measures of one set of embeddings; `verification.py` and `rank1_hits` define each of them.

    `tar_at_far` and `threshold_at_far` hold the FARs, as text, that the number of impostor pairs can resolve.
    `roc` is (threshold, FAR, TAR); the histograms are equal bins over cosines from -1 to 1.
    `kfold_accuracy` is there where a list of pairs was given.
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

    @property
    def operating_far(self) -> str | None:
        """The FAR at which the report says "accepted": 1e-3, else the smallest above it that can be counted."""
        countable = [far for far in FARS[:3] if far in self.tar_at_far]
        return countable[-1] if countable else None

    @property
    def operating_threshold(self) -> float:
        """The threshold of `operating_far`; with fewer than ten impostor pairs that of the equal error rate."""
        return self.eer_threshold if self.operating_far is None else self.threshold_at_far[self.operating_far]

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

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers, by the names they have in `Evaluation.to_json`."""
        return {**vars(self), "kfold_accuracy": self.kfold_accuracy._asdict(), "roc": named_points(self.roc)}


def evaluate(
    unit_ND: Float[Tensor, "N D"],
    labels_N: Int[Tensor, " N"],
    world: World,
    pairs_P2: Int[Tensor, "P 2"] | None = None,
    fold_P: Int[Tensor, " P"] | None = None,
) -> Evaluation:
    """The measures of all embeddings, the same on every rank and to the last bit for every number of ranks.

    Every rank gives the same N unit rows (`gathered`) and scores its share of the N (N - 1) / 2 pairs; `pairs_P2` are
    rows, in the folds `fold_P` or in ten equal ones.
    Talks: one all-reduce of 34 MB of counts, one gather of N integers a rank.
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
    return Evaluation(
        **rates(points),
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
    )


def evaluate_pairs(
    unit_ND: Float[Tensor, "N D"],
    pairs_P2: Int[Tensor, "P 2"],
    same_P: Bool[Tensor, " P"],
    fold_P: Int[Tensor, " P"] | None = None,
) -> PairEvaluation:
    """The measures of P pairs of rows, `same_P` saying which are genuine, in the folds `fold_P` or in ten equal ones.

    Talks to no other rank: each may compute all of it from the gathered rows. ValueError like `evaluate`, and where
    there are fewer pairs than folds.
    """
    check_unit_rows(unit_ND)
    same_P = same_P.to(unit_ND.device)
    cos_P = pair_cosines(unit_ND, *pairs_P2.to(unit_ND.device).unbind(1))
    points = verification.roc(_histogram(cos_P[same_P]), _histogram(cos_P[~same_P]))
    return PairEvaluation(
        **rates(points),
        kfold_accuracy=verification.kfold_accuracy(cos_P, same_P, _folds(fold_P, len(cos_P))),
        counts={"images": len(unit_ND), **pair_counts(points)},
    )


def _folds(fold_P: Tensor | None, pairs: int) -> Tensor:
    return verification.consecutive_folds(pairs, FOLDS) if fold_P is None else fold_P


def check_unit_rows(unit_ND: Tensor) -> None:
    """ValueError for rows longer than 1 or not finite; of gathered rows, so that no rank raises alone."""
    length_N = torch.linalg.vector_norm(unit_ND, dim=1, dtype=torch.float32)
    bad = (~(length_N <= 1.01)).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(unit_ND)} embeddings cannot be compared, the first in row {int(bad[0])} of length "
            f"{float(length_N[bad[0]])}: expected finite rows of length 1. A network that gives others has diverged"
        )


def rates(points: verification.Roc) -> dict[str, Any]:
    """The fields that every evaluation has, whatever its pairs come from."""
    eer, eer_threshold = verification.equal_error_rate(points)
    best_accuracy, best_accuracy_threshold = verification.best_accuracy(points)
    at_far = {far: verification.tar_at_far(points, float(far)) for far in FARS}
    countable = {far: point for far, point in at_far.items() if point is not None}
    return {
        "eer": eer,
        "eer_threshold": eer_threshold,
        "best_accuracy": best_accuracy,
        "best_accuracy_threshold": best_accuracy_threshold,
        "tar_at_far": {far: tar for far, (tar, _) in countable.items()},
        "threshold_at_far": {far: threshold for far, (_, threshold) in countable.items()},
        "roc": verification.thinned_roc(points),
    }


def pair_counts(points: verification.Roc) -> dict[str, int]:
    """How many pairs of each kind the rates rest on."""
    genuine, impostor = int(points.accepted_genuine_K[0]), int(points.accepted_impostor_K[0])
    return {"genuine_pairs": genuine, "impostor_pairs": impostor}


def named_points(roc: list[tuple[float, float, float]]) -> list[dict[str, float]]:
    """The points of a ROC as JSON has them."""
    return [dict(zip(("threshold", "far", "tar"), point, strict=True)) for point in roc]


def _histogram(cos_P: Tensor) -> Tensor:
    """Scores on the grid of `pair_scores`, counted bin by bin."""
    return torch.bincount(((cos_P + 1.0) * STEPS_PER_UNIT).round().long(), minlength=SCORE_BINS)


def _summed(scores: PairScores, world: World) -> PairScores:
    genuine, impostor = world.all_sum(torch.stack([scores.genuine, scores.impostor]))
    return PairScores(genuine, impostor, world.all_gather(scores.nearest_N).amax(0))
