"""Verification measures, exact, from the two integer histograms of `pair_scores.py`, and k-fold accuracy of pair lists.

A threshold t accepts a pair as "the same identity" when its score is >= t.
TAR(t) = accepted genuine pairs / genuine pairs; FAR(t) = accepted impostor pairs / impostor pairs.
Every function here raises ValueError where there is no genuine or no impostor pair: no rate exists then.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from partial_fc.functional.pair_scores import score_of_bin

Histogram = Int[Tensor, " bins"]


def tar_at_far(genuine: Histogram, impostor: Histogram, far: float) -> tuple[float, float] | None:
    """(TAR, threshold) at the lowest threshold whose FAR is <= `far`, by counts; None where `far` cannot be counted.

    With fewer than 1 / far impostor pairs the next FAR below `far` is zero, which says how few pairs there are and
    nothing about the embeddings. `far` is read as the decimal it prints as: 0.1 is one tenth, not the double beside it.
    """
    if not 0 < far <= 1:
        raise ValueError(f"far = {far}: expected a rate above 0 and at most 1")
    accepted_genuine, accepted_impostor = _accepted_counts(genuine, impostor)
    allowed = math.floor(Fraction(repr(float(far))) * int(accepted_impostor[0]))
    if allowed < 1:
        return None
    lowest = int((accepted_impostor <= allowed).int().argmax())
    return int(accepted_genuine[lowest]) / int(accepted_genuine[0]), score_of_bin(lowest)


def equal_error_rate(genuine: Histogram, impostor: Histogram) -> tuple[float, float]:
    """(EER, threshold): the rate at which FAR equals the false rejects 1 - TAR.

    The two curves are steps and mostly meet between two neighbouring thresholds; the rate is then the one at which the
    straight line between these two points of the ROC crosses FAR = 1 - TAR. Separable scores give 0, scores that are
    all equal give 0.5.
    """
    tar, far = _rates(genuine, impostor)
    excess = far - (1 - tar)
    crossing = int((excess <= 0).int().argmax())  # excess falls from 1 to -1, so there is one, and it is not at 0
    before, after = excess[crossing - 1], excess[crossing]
    weight = before / (before - after)
    return float(torch.lerp(far[crossing - 1], far[crossing], weight)), score_of_bin(crossing)


def best_accuracy(genuine: Histogram, impostor: Histogram) -> tuple[float, float]:
    """(accuracy, threshold) at the best threshold, genuine and impostor pairs weighted equally.

    accuracy = max_t (TAR(t) + 1 - FAR(t)) / 2, at the lowest such t. Unweighted accuracy would be the share of impostor
    pairs, which are nearly all pairs. The threshold is chosen on the same pairs: `kfold_accuracy` is the honest twin.
    """
    tar, far = _rates(genuine, impostor)
    accuracy = (tar + 1 - far) / 2
    best = int(accuracy.argmax())
    return float(accuracy[best]), score_of_bin(best)


def roc_points(genuine: Histogram, impostor: Histogram, points: int = 400) -> list[tuple[float, float, float]]:
    """About `points` rows (threshold, FAR, TAR) from FAR 1 down to FAR 0, evenly spaced in log FAR, for plotting.

    Each is an exact operating point: the lowest threshold that accepts no more than so many impostor pairs.
    """
    tar, far = _rates(genuine, impostor)
    _, accepted_impostor = _accepted_counts(genuine, impostor)
    impostors = int(accepted_impostor[0])
    counts = torch.logspace(math.log10(impostors), 0, points, dtype=torch.float64).round().long()
    allowed = torch.cat([counts.clamp_(max=impostors), counts.new_zeros(1)]).to(far.device)
    # searchsorted wants ascending values: the accepted counts fall with the threshold, so their negatives rise.
    lowest = torch.searchsorted(-accepted_impostor, -allowed, side="left").unique()
    thresholds = [score_of_bin(score_bin) for score_bin in lowest.tolist()]
    return list(zip(thresholds, far[lowest].tolist(), tar[lowest].tolist(), strict=True))


def coarse_histogram(counts: Histogram, bins: int = 256) -> list[int]:
    """The histogram in `bins` equal bins over [-1, 1] (a power of two), for plotting; a score of 1 is in the last."""
    coarse = counts[:-1].reshape(bins, -1).sum(1)
    coarse[-1] += counts[-1]
    return [int(count) for count in coarse.tolist()]


def kfold_accuracy(cos_P: Float[Tensor, " P"], same_P: Bool[Tensor, " P"], folds: int = 10) -> tuple[float, float]:
    """(mean, standard deviation) of the accuracy over the folds, each at the threshold that is best on the others.

    This is view 2 of the LFW protocol: folds are consecutive stretches of the pair list (the first P mod folds hold one
    pair more), never shuffled, and the deviation is the population's (divided by the number of folds), as the field
    prints it. The threshold lies midway between two neighbouring scores; of equally good ones the highest is taken.
    """
    if not 2 <= folds <= len(cos_P):
        raise ValueError(f"folds = {folds} for {len(cos_P)} pairs: expected at least 2 and at most one a pair")
    cos_P, same_P = cos_P.double(), same_P.bool()
    fold_P = torch.tensor_split(torch.arange(len(cos_P), device=cos_P.device), folds)
    accuracies = []
    for held_out in fold_P:
        others = torch.ones_like(same_P).index_fill_(0, held_out, value=False)
        threshold = _best_threshold(cos_P[others], same_P[others])
        accuracies.append(((cos_P[held_out] >= threshold) == same_P[held_out]).double().mean())
    accuracy = torch.stack(accuracies)
    return float(accuracy.mean()), float(accuracy.std(correction=0))


def _best_threshold(cos_P: Tensor, same_P: Tensor) -> float:
    """The cut that tells most pairs right: k pairs are accepted, k = 0 to P, wherever scores differ across the cut."""
    descending, order = cos_P.sort(descending=True)
    same = same_P[order].long()
    gained = torch.cat([same.new_zeros(1), (2 * same - 1).cumsum(0)])
    walls = torch.cat([descending.new_tensor([2.0]), descending, descending.new_tensor([-2.0])])
    gained[walls[:-1] == walls[1:]] = -len(cos_P) - 1
    best = int(gained.argmax())
    return float((walls[best] + walls[best + 1]) / 2)


def _accepted_counts(genuine: Tensor, impostor: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs that each threshold accepts, from the lowest bin to one past the highest, which accepts none."""
    counts = torch.nn.functional.pad(torch.stack([genuine, impostor]), (0, 1))
    accepted = counts.flip(1).cumsum(1).flip(1)
    if not bool((accepted[:, 0] > 0).all()):
        raise ValueError(
            f"got {int(accepted[0, 0])} genuine and {int(accepted[1, 0])} impostor pairs: "
            "expected some of both (two identities, one of them with two images)"
        )
    return accepted[0], accepted[1]


def _rates(genuine: Tensor, impostor: Tensor) -> tuple[Tensor, Tensor]:
    """(TAR, FAR) of every threshold in float64."""
    accepted_genuine, accepted_impostor = (accepted.double() for accepted in _accepted_counts(genuine, impostor))
    return accepted_genuine / accepted_genuine[0], accepted_impostor / accepted_impostor[0]
