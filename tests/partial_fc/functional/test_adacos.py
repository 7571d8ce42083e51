"""The scale of AdaCos: eq. 12 and 14 of 1905.00292, and where the recurrence has no fixed point."""

from __future__ import annotations

import math

import pytest
import torch

from partial_fc.functional import reference
from partial_fc.functional.adacos import dynamic_scale, fixed_scale, median_angle

float64 = torch.float64
UNLIMITED = math.inf


@pytest.mark.parametrize(("num_classes", "scale"), [(3, 0.9803), (85_742, 16.064), (2_000_000, 20.518)])
def test_the_fixed_scale_is_root_two_times_the_log_of_the_other_classes(num_classes: int, scale: float) -> None:
    assert fixed_scale(num_classes) == pytest.approx(scale, abs=0.001)


@pytest.mark.parametrize("num_classes", [1, 2])
def test_fewer_than_three_classes_have_no_scale(num_classes: int) -> None:
    with pytest.raises(ValueError, match=f"num_classes={num_classes}"):
        fixed_scale(num_classes)


def test_the_median_of_an_even_number_of_angles_is_the_lower_of_the_middle_two() -> None:
    angles = torch.tensor([1.2, 0.3, 0.9, 0.5], dtype=float64)
    assert float(median_angle(angles.cos())) == pytest.approx(0.5, rel=1e-12)
    assert float(median_angle(angles[:3].cos())) == pytest.approx(0.9, rel=1e-12)


def test_a_cosine_that_rounding_put_beyond_one_has_the_angle_zero() -> None:
    assert float(median_angle(torch.tensor([1.0000001]))) == 0.0


def test_a_few_crowded_rows_move_the_mean_and_not_the_median() -> None:
    calm_N, crowded_N = torch.full((9,), 7.0, dtype=float64), torch.full((9,), 7.0, dtype=float64)
    crowded_N[:2] = 30.0
    angle = torch.tensor(1.2, dtype=float64)
    for average, moves in (("mean", True), ("median", False)):
        calm, crowded = (dynamic_scale(each, angle, 4000, UNLIMITED, average)[0] for each in (calm_N, crowded_N))
        assert (crowded > calm + 1) == moves


@pytest.mark.parametrize("near", [0.0, 3.0])
@pytest.mark.parametrize("size", [1, 7, 8])
def test_the_dynamic_scale_equals_plain_loops(near: float, size: int) -> None:
    """Both sides of π/4, which ``near`` decides."""
    rows_CD, labels_N = torch.nn.functional.normalize(torch.randn(20, 6, dtype=float64)), torch.randint(20, (size,))
    cos_NC = reference.cosines(torch.randn(size, 6, dtype=float64) + near * rows_CD[labels_N] * 6**0.5, rows_CD)
    target_N = cos_NC.gather(1, labels_N[:, None])[:, 0]
    assert (float(median_angle(target_N)) < math.pi / 4) == (near > 0)
    negatives_N = (5.0 * cos_NC).scatter(1, labels_N[:, None], -torch.inf).logsumexp(dim=1)
    scale, limited = dynamic_scale(negatives_N, median_angle(target_N), 20, UNLIMITED)
    assert float(scale) == pytest.approx(reference.adacos_scale(cos_NC, labels_N, 5.0), rel=1e-12)
    assert float(limited) == 0.0


def iterated(
    log_mean_exp: dict[str, float], num_classes: int, max_scale: float, steps: int = 2000
) -> tuple[float, bool]:
    """The recurrence at θ_med > π/4 for cosines of this mean and variance (normal): the last scale, and the limit."""
    scale, limited = torch.tensor(fixed_scale(num_classes), dtype=float64), torch.tensor(0.0)
    for _ in range(steps):
        exponent = log_mean_exp["mean"] * scale + 0.5 * log_mean_exp["variance"] * scale**2
        negatives_N = (math.log(num_classes - 1) + exponent).expand(4)
        scale, limited = dynamic_scale(negatives_N, torch.tensor(1.2, dtype=float64), num_classes, max_scale)
        if float(scale) > 1e6:
            break
    return float(scale), bool(limited)


@pytest.mark.parametrize(("dim_over_log", "settles"), [(3.8, False), (4.2, True)])
def test_the_recurrence_has_a_fixed_point_just_from_four_log_classes_dimensions_on(
    dim_over_log: float, settles: bool
) -> None:
    dim = dim_over_log * math.log(999)
    spread = {"mean": 0.0, "variance": 1.0 / dim}
    scale, _ = iterated(spread, 1000, UNLIMITED)
    assert (scale < 1e6) == settles
    capped, limited = iterated(spread, 1000, 64.0)
    assert limited != settles
    if not settles:
        assert capped == 64.0


def test_a_collapsed_cone_of_centres_has_no_fixed_point() -> None:
    assert iterated({"mean": 0.75, "variance": 0.0}, 1000, UNLIMITED)[0] > 1e6
    assert iterated({"mean": 0.75, "variance": 0.0}, 1000, 64.0) == (64.0, True)


def test_a_share_of_negatives_above_cosine_0_9_has_no_fixed_point() -> None:
    """One image in a hundred lies at 0.9 from a wrong class: from some scale on it alone is B_avg."""
    scale = torch.tensor(30.0, dtype=float64)
    for _ in range(100):
        negatives_N = torch.full((100,), math.log(999), dtype=float64)
        negatives_N[0] = torch.logaddexp(negatives_N[0], 0.9 * scale)
        following, _ = dynamic_scale(negatives_N, torch.tensor(1.0, dtype=float64), 1000, UNLIMITED)
        assert following > scale
        scale = following
    scale, limited = dynamic_scale(0.9 * torch.full((4,), 1e4), torch.tensor(1.0), 1000, 64.0)
    assert (float(scale), float(limited)) == (64.0, 1.0)


def test_negatives_on_the_far_side_cannot_turn_the_loss_around() -> None:
    scale, limited = dynamic_scale(torch.tensor([-5.0, -4.0]), torch.tensor(1.0), 1000, 64.0)
    assert (float(scale), float(limited)) == (1.0, 1.0)


def test_the_average_over_the_batch_is_of_exponentials_and_does_not_overflow() -> None:
    scale, _ = dynamic_scale(torch.tensor([500.0, 0.0]), torch.tensor(0.0), 1000, UNLIMITED)
    assert float(scale) == pytest.approx(500.0 - math.log(2.0), rel=1e-6)
