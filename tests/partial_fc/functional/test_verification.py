"""The measures against plain loops over the scores, ties included."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from partial_fc.functional.pair_scores import SCORE_BINS, STEPS_PER_UNIT
from partial_fc.functional.verification import (
    Roc,
    best_accuracy,
    coarse_histogram,
    consecutive_folds,
    equal_error_rate,
    kfold_accuracy,
    roc,
    tar_at_far,
    thinned_roc,
)

Scores = list[int]


def some_scores(seed: int, ties: bool) -> tuple[Scores, Scores]:
    """Overlapping scores as bins; with ties nearly every value is shared, within a kind and between the two."""
    generator = torch.Generator().manual_seed(seed)
    genuine = 0.3 + 0.3 * torch.randn(60, generator=generator)
    impostor = 0.3 * torch.randn(230, generator=generator)
    steps = 8 if ties else STEPS_PER_UNIT
    cosines = (cos.clamp(-1, 1).mul(steps).round().div(steps) for cos in (genuine, impostor))
    first, second = (((cos + 1) * STEPS_PER_UNIT).long().tolist() for cos in cosines)
    return first, second


def histogram(score_bins: Scores) -> Tensor:
    return torch.bincount(torch.tensor(score_bins, dtype=torch.int64), minlength=SCORE_BINS)


def points_of(genuine: Scores, impostor: Scores) -> Roc:
    return roc(histogram(genuine), histogram(impostor))


def score_of_bin(score_bin: int) -> float:
    return score_bin / STEPS_PER_UNIT - 1


def rate(score_bins: Scores, threshold: int) -> float:
    return sum(score >= threshold for score in score_bins) / len(score_bins)


def every_threshold(genuine: Scores, impostor: Scores) -> list[int]:
    """Rates change only just above a score, so these thresholds reach every operating point at its lowest place."""
    return sorted({0} | {score + 1 for score in genuine + impostor})


cases = pytest.mark.parametrize(("seed", "ties"), [(seed, ties) for seed in range(4) for ties in (False, True)])


@cases
@pytest.mark.parametrize("far", [0.5, 0.1, 0.05, 0.01, 0.005])
def test_tar_at_far_is_that_of_the_lowest_allowed_threshold(seed: int, ties: bool, far: float) -> None:
    genuine, impostor = some_scores(seed, ties)
    for threshold in every_threshold(genuine, impostor):
        if sum(score >= threshold for score in impostor) <= Fraction(str(far)) * len(impostor):
            break
    expected = (rate(genuine, threshold), score_of_bin(threshold))
    assert tar_at_far(points_of(genuine, impostor), far) == expected


def test_a_far_below_one_impostor_pair_is_not_counted() -> None:
    genuine, impostor = some_scores(0, ties=False)
    assert tar_at_far(points_of(genuine, impostor[:99]), 0.01) is None
    assert tar_at_far(points_of(genuine, impostor[:100]), 0.01) is not None


def test_a_far_means_its_decimal_and_not_the_double_beside_it() -> None:
    impostor = [10 * score for score in range(100)]  # 0.29 * 100 is 28.999999999999996 in doubles
    result = tar_at_far(points_of([999], impostor), 0.29)
    assert result == (1.0, score_of_bin(701))


@pytest.mark.parametrize("far", [0.0, -0.1, 1.5, math.nan])
def test_a_far_that_is_no_rate_is_refused(far: float) -> None:
    with pytest.raises(ValueError, match="expected a rate"):
        tar_at_far(points_of([1], [1]), far)


def test_impostors_at_cosine_one_push_the_threshold_past_one() -> None:
    top = SCORE_BINS - 1
    assert tar_at_far(points_of([top], [top] * 10), 0.1) == (0.0, 1.0 + 2.0**-20)


@cases
def test_equal_error_rate_is_where_the_roc_crosses_the_diagonal(seed: int, ties: bool) -> None:
    genuine, impostor = some_scores(seed, ties)
    before = (1.0, 0.0)
    for threshold in every_threshold(genuine, impostor):
        far, frr = rate(impostor, threshold), 1 - rate(genuine, threshold)
        if far <= frr:
            break
        before = (far, frr)
    # FAR and false rejects as two straight lines between the neighbours; solved for the place where they are equal.
    place = (before[0] - before[1]) / ((before[0] - before[1]) + (frr - far))
    expected = before[0] + place * (far - before[0])
    measured, measured_threshold = equal_error_rate(points_of(genuine, impostor))
    assert measured == pytest.approx(expected, abs=1e-12)
    assert measured_threshold == score_of_bin(threshold)


@cases
def test_best_accuracy_weighs_both_kinds_alike(seed: int, ties: bool) -> None:
    genuine, impostor = some_scores(seed, ties)
    accuracies = [
        ((rate(genuine, threshold) + 1 - rate(impostor, threshold)) / 2, -threshold)
        for threshold in every_threshold(genuine, impostor)
    ]
    expected, negative_threshold = max(accuracies)
    measured, threshold = best_accuracy(points_of(genuine, impostor))
    assert measured == pytest.approx(expected, abs=1e-12)
    assert threshold == score_of_bin(-negative_threshold)


def test_separable_scores_make_no_error() -> None:
    points = points_of([900, 901, 902], [100, 101, 899])
    assert equal_error_rate(points) == (0.0, score_of_bin(900))
    assert best_accuracy(points) == (1.0, score_of_bin(900))
    assert tar_at_far(points, 0.4) == (1.0, score_of_bin(102))


def test_scores_that_are_all_equal_are_worth_a_coin() -> None:
    points = points_of([500] * 3, [500] * 20)
    assert equal_error_rate(points)[0] == 0.5
    assert best_accuracy(points)[0] == 0.5
    assert tar_at_far(points, 0.1) == (0.0, score_of_bin(501))


@cases
def test_every_roc_point_is_an_operating_point_and_both_ends_are_there(seed: int, ties: bool) -> None:
    genuine, impostor = some_scores(seed, ties)
    points = thinned_roc(points_of(genuine, impostor), count=5000)
    for threshold, far, tar in points:
        threshold_bin = round((threshold + 1) * STEPS_PER_UNIT)
        assert (far, tar) == (rate(impostor, threshold_bin), rate(genuine, threshold_bin))
    assert points[0] == (-1.0, 1.0, 1.0)
    assert points[-1][1] == 0.0
    assert {far for _, far, _ in points} == {rate(impostor, bin_) for bin_ in every_threshold(genuine, impostor)}


def test_a_thinned_roc_keeps_its_ends() -> None:
    genuine, impostor = some_scores(0, ties=False)
    points = thinned_roc(points_of(genuine, impostor), count=10)
    assert 5 <= len(points) <= 12
    assert (points[0][1], points[-1][1]) == (1.0, 0.0)


@pytest.mark.parametrize(("genuine", "impostor"), [([], [5, 6]), ([5, 6], []), ([], [])])
def test_no_rate_exists_without_pairs_of_both_kinds(genuine: Scores, impostor: Scores) -> None:
    with pytest.raises(ValueError, match=f"got {len(genuine)} genuine and {len(impostor)} impostor pairs"):
        points_of(genuine, impostor)


def test_a_coarse_histogram_keeps_every_pair() -> None:
    coarse = coarse_histogram(histogram([0, 1, STEPS_PER_UNIT - 1, STEPS_PER_UNIT, SCORE_BINS - 1]), bins=4)
    assert coarse == [2, 1, 1, 1]


def plain_kfold(cosines: list[float], same: list[bool], fold_of: list[int]) -> tuple[float, float, float]:
    """The LFW protocol with loops: the threshold is chosen on the other folds, the accuracy counted on this one."""
    pairs = list(zip(cosines, same, fold_of, strict=True))
    accuracies = []
    for fold in sorted(set(fold_of)):
        held_out = [(cos, is_same) for cos, is_same, of in pairs if of == fold]
        others = [(cos, is_same) for cos, is_same, of in pairs if of != fold]
        values = sorted({2.0, -2.0} | {cos for cos, _ in others})
        thresholds = [(low + high) / 2 for low, high in pairwise(values)]
        right = {cut: sum((cos >= cut) == is_same for cos, is_same in others) for cut in thresholds}
        best = max(cut for cut in thresholds if right[cut] == max(right.values()))
        accuracies.append(sum((cos >= best) == is_same for cos, is_same in held_out) / len(held_out))
    folds, mean = len(accuracies), sum(accuracies) / len(accuracies)
    squares = sum((accuracy - mean) ** 2 for accuracy in accuracies)
    return mean, math.sqrt(squares / folds), math.sqrt(squares / (folds - 1)) / math.sqrt(folds)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("pairs", "folds"), [(40, 10), (43, 10), (7, 2), (5, 5)])
def test_kfold_accuracy_is_the_plain_loop_s(pairs: int, folds: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(pairs)
    same_P = torch.rand(pairs, generator=generator) < 0.5
    cos_P = (0.4 * same_P + 0.3 * torch.randn(pairs, generator=generator, dtype=torch.float64)).clamp(-1, 1)
    if ties:
        cos_P = (cos_P * 4).round() / 4
    fold_P = consecutive_folds(pairs, folds)
    scattered_P = torch.arange(pairs) % folds
    for of_P in (fold_P, scattered_P, fold_P + 3 * (fold_P > 0)):  # the last leaves numbers out
        expected = plain_kfold(cos_P.tolist(), same_P.tolist(), of_P.tolist())
        assert kfold_accuracy(cos_P, same_P, of_P) == pytest.approx(expected, abs=1e-12)


def test_kfold_accuracy_by_hand() -> None:
    """Three folds of two pairs; the impostor at 0.6 ties with the genuine pair at 0.6, which is in another fold."""
    cosines = torch.tensor([0.9, 0.1, 0.9, 0.6, 0.6, 0.4])
    same = torch.tensor([True, False, True, False, True, False])
    found = kfold_accuracy(cosines, same, torch.tensor([0, 0, 1, 1, 2, 2]))
    # Fold 1 is cut at 0.75 (0.5 is as good, lower): 2 of 2. Fold 2 at 0.5: 1 of 2. Fold 3 at 0.75: 1 of 2.
    assert found.mean == pytest.approx(2 / 3)
    assert found.std == pytest.approx(math.sqrt(1 / 18))
    assert found.standard_error == pytest.approx(math.sqrt(1 / 12) / math.sqrt(3))


def test_kfold_accuracy_of_separable_pairs_is_one() -> None:
    same_P = torch.arange(20) % 2 == 0
    assert kfold_accuracy(torch.where(same_P, 0.8, 0.1), same_P, consecutive_folds(20, 10)) == (1.0, 0.0, 0.0)


def test_kfold_accuracy_of_scores_that_are_all_equal_is_a_coin() -> None:
    same_P = torch.arange(20) % 2 == 0
    assert kfold_accuracy(torch.full((20,), 0.5), same_P, consecutive_folds(20, 10)).mean == 0.5


@pytest.mark.parametrize("folds", [1, 21])
def test_folds_that_cannot_be_are_refused(folds: int) -> None:
    with pytest.raises(ValueError, match="expected at least 2"):
        consecutive_folds(20, folds)


def test_a_single_fold_has_no_other_to_choose_a_threshold_on() -> None:
    with pytest.raises(ValueError, match="all 20 pairs are of one fold: expected at least 2"):
        kfold_accuracy(torch.zeros(20), torch.ones(20, dtype=torch.bool), torch.full((20,), 7))
