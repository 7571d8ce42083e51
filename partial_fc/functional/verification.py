"""Verification measures, exact, from the two integer histograms of `pair_scores.py`, and k-fold accuracy of pair lists.

A threshold t accepts a pair as "the same identity" when its score is >= t.
TAR(t) = accepted genuine pairs / genuine pairs; FAR(t) = accepted impostor pairs / impostor pairs.
K operating points: the rates change only just above a score that some pair has, so K is at most the number of distinct
scores and one more, and usually far fewer than there are bins.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from partial_fc.functional.pair_scores import STEPS_PER_UNIT

Histogram = Int[Tensor, " bins"]


class Roc(NamedTuple):
    """All K operating points by ascending threshold, from "accept all" to "accept none".

    Each threshold is the lowest with these counts of accepted pairs.
    """

    threshold_K: Float[Tensor, " K"]
    accepted_genuine_K: Int[Tensor, " K"]
    accepted_impostor_K: Int[Tensor, " K"]

    @property
    def tar_K(self) -> Float[Tensor, " K"]:
        """The share of genuine pairs accepted, float64."""
        return self.accepted_genuine_K.double() / self.accepted_genuine_K[0].double()

    @property
    def far_K(self) -> Float[Tensor, " K"]:
        """The share of impostor pairs accepted, float64."""
        return self.accepted_impostor_K.double() / self.accepted_impostor_K[0].double()


def roc(genuine: Histogram, impostor: Histogram) -> Roc:
    """The operating points of two score histograms.

    Raises ValueError where there is no genuine or no impostor pair: no rate exists then.
    """
    if not (int(genuine.sum()) and int(impostor.sum())):
        raise ValueError(
            f"got {int(genuine.sum())} genuine and {int(impostor.sum())} impostor pairs: "
            "expected some of both (two identities, one of them with two images)"
        )
    scored = (genuine + impostor).nonzero().flatten()
    rejected = torch.stack([genuine[scored], impostor[scored]]).cumsum(1)
    accepted = torch.nn.functional.pad(rejected[:, -1:] - rejected, (1, 0))
    accepted[:, 0] = rejected[:, -1]
    threshold_bin = torch.nn.functional.pad(scored + 1, (1, 0))
    return Roc(threshold_bin.double() / STEPS_PER_UNIT - 1.0, accepted[0], accepted[1])


def tar_at_far(points: Roc, far: float) -> tuple[float, float] | None:
    """(TAR, threshold) at the lowest threshold whose FAR is <= `far`, by counts; None where `far` cannot be counted.

    With fewer than 1 / far impostor pairs the next FAR below `far` is zero, which says how few pairs there are and
    nothing about the embeddings. `far` is read as the decimal it prints as: 0.1 is one tenth, not the double beside it.
    """
    if not 0 < far <= 1:
        raise ValueError(f"far = {far}: expected a rate above 0 and at most 1")
    allowed = math.floor(Fraction(repr(float(far))) * int(points.accepted_impostor_K[0]))
    if allowed < 1:
        return None
    lowest = int((points.accepted_impostor_K <= allowed).int().argmax())
    return float(points.tar_K[lowest]), float(points.threshold_K[lowest])


def equal_error_rate(points: Roc) -> tuple[float, float]:
    """(EER, threshold): the rate at which FAR equals the false rejects 1 - TAR.

    The two curves are steps and mostly meet between two neighbouring thresholds; the rate is then the one at which the
    straight line between these two points of the ROC crosses FAR = 1 - TAR. Separable scores give 0, scores that are
    all equal give 0.5.
    """
    far_K = points.far_K
    excess_K = far_K - (1 - points.tar_K)
    crossing = int((excess_K <= 0).int().argmax())  # it falls from 1 to -1, so there is a crossing, and not at 0
    before, after = excess_K[crossing - 1], excess_K[crossing]
    rate = torch.lerp(far_K[crossing - 1], far_K[crossing], before / (before - after))
    return float(rate), float(points.threshold_K[crossing])


def best_accuracy(points: Roc) -> tuple[float, float]:
    """(accuracy, threshold) at the best threshold, genuine and impostor pairs weighted equally.

    accuracy = max_t (TAR(t) + 1 - FAR(t)) / 2, at the lowest such t. Unweighted accuracy would be the share of impostor
    pairs, which are nearly all pairs. The threshold is chosen on the same pairs: `kfold_accuracy` is the honest twin.
    """
    accuracy_K = (points.tar_K + 1 - points.far_K) / 2
    best = int(accuracy_K.argmax())
    return float(accuracy_K[best]), float(points.threshold_K[best])


def thinned_roc(points: Roc, count: int = 400) -> list[tuple[float, float, float]]:
    """About `count` rows (threshold, FAR, TAR) from FAR 1 down to FAR 0, evenly spaced in log FAR, for plotting.

    Each is an exact operating point: the lowest threshold that accepts no more than so many impostor pairs.
    """
    impostors = int(points.accepted_impostor_K[0])
    wanted = torch.logspace(math.log10(impostors), 0, count, dtype=torch.float64).round().long().clamp_(max=impostors)
    wanted = torch.nn.functional.pad(wanted, (0, 1)).to(points.accepted_impostor_K.device)
    # searchsorted wants ascending values: the accepted counts fall with the threshold, so their negatives rise.
    lowest = torch.unique(torch.searchsorted(-points.accepted_impostor_K, -wanted))
    columns = (points.threshold_K[lowest], points.far_K[lowest], points.tar_K[lowest])
    return list(zip(*(column.tolist() for column in columns), strict=True))


def coarse_histogram(counts: Histogram, bins: int = 256) -> list[int]:
    """The histogram in `bins` equal bins over [-1, 1] (a power of two), for plotting; a score of 1 is in the last."""
    coarse = counts[:-1].reshape(bins, -1).sum(1)
    coarse[-1] += counts[-1]
    return [int(count) for count in coarse.tolist()]


class FoldAccuracy(NamedTuple):
    """The accuracies of F folds: their mean, their deviation, and the standard error of the mean.

    `std` divides by F, as the field prints it behind its accuracies. `standard_error` is what the protocol of LFW
    reports: the deviation that divides by F - 1, over the root of F (Huang et al. 2007, view 2).
    """

    mean: float
    std: float
    standard_error: float


def consecutive_folds(pairs: int, folds: int) -> Int[Tensor, " P"]:
    """The fold of each of `pairs` pairs: consecutive stretches, of which the first `pairs` mod `folds` are one longer.

    Raises ValueError where there are fewer than two folds, or fewer pairs than folds.
    """
    if not 2 <= folds <= pairs:
        raise ValueError(f"folds = {folds} for {pairs} pairs: expected at least 2 and at most one a pair")
    sizes = [pairs // folds + (fold < pairs % folds) for fold in range(folds)]
    return torch.repeat_interleave(torch.arange(folds), torch.tensor(sizes))


def kfold_accuracy(cos_P: Float[Tensor, " P"], same_P: Bool[Tensor, " P"], fold_P: Int[Tensor, " P"]) -> FoldAccuracy:
    """The accuracy over the folds, each counted at the threshold that is best on the others.

    This is view 2 of the LFW protocol; `fold_P` are the folds as the list of pairs has them. The threshold lies midway
    between two neighbouring scores, so that pairs of equal score are told apart by nobody; of equally good ones the
    highest is taken. Raises ValueError where there is one fold alone: no other is left to choose a threshold on.
    """
    folds = torch.unique(fold_P).tolist()
    if len(folds) < 2:
        raise ValueError(
            f"all {len(cos_P)} pairs are of one fold: expected at least 2, as the threshold is chosen on the others"
        )
    cos_P, same_P, fold_P = cos_P.double(), same_P.bool(), fold_P.to(cos_P.device)
    accuracies = []
    for fold in folds:
        held_out = fold_P == fold
        threshold = _best_threshold(cos_P[~held_out], same_P[~held_out])
        accuracies.append(((cos_P[held_out] >= threshold) == same_P[held_out]).double().mean())
    accuracy = torch.stack(accuracies)
    deviation = float(accuracy.std(correction=0))
    return FoldAccuracy(float(accuracy.mean()), deviation, deviation / math.sqrt(len(folds) - 1))


def _best_threshold(cos_P: Tensor, same_P: Tensor) -> float:
    """The cut that tells most pairs right: k pairs are accepted, k = 0 to P, wherever scores differ across the cut."""
    descending, order = cos_P.sort(descending=True)
    same = same_P[order].long()
    gained = torch.cat([same.new_zeros(1), (2 * same - 1).cumsum(0)])
    walls = torch.cat([descending.new_tensor([2.0]), descending, descending.new_tensor([-2.0])])
    gained[walls[:-1] == walls[1:]] = -len(cos_P) - 1
    best = int(gained.argmax())
    return float((walls[best] + walls[best + 1]) / 2)
