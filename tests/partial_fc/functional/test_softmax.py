"""The softmax from one sum: exact, and finite at every scale and number of classes that is allowed."""

from __future__ import annotations

import math

import pytest
import torch

from partial_fc.functional.softmax import LARGEST_SCALE, exponent_shift, log_of_sum, softmax_loss

float64 = torch.float64


@pytest.mark.parametrize("scale", [1.0, 16.0, 64.0, LARGEST_SCALE])
@pytest.mark.parametrize("num_classes", [2, 1000, 100_000_000])
def test_the_shifted_sum_neither_overflows_nor_vanishes(scale: float, num_classes: int) -> None:
    """All cosines equal, at either end; the sum over so many classes is one product."""
    shift = exponent_shift(torch.tensor(scale), num_classes)
    for cosine in (1.0, 0.0, -0.94):
        total_N = (num_classes - 1) * torch.exp(scale * torch.tensor([cosine]) - shift)
        assert total_N.isfinite().all()
        expected = scale * cosine + math.log(num_classes - 1)
        assert float(log_of_sum(total_N, shift)) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_no_shift_is_made_where_none_is_needed() -> None:
    assert float(exponent_shift(torch.tensor(64.0), 1_000_000)) == 0.0


def test_a_cosine_rounded_above_one_still_fits_below_the_largest_exponent() -> None:
    """bfloat16 rounds products of unit rows by up to one part in 256."""
    shift = exponent_shift(torch.tensor(LARGEST_SCALE), 100_000_000)
    assert (1e8 * torch.exp(LARGEST_SCALE * torch.tensor([1 + 1 / 256]) - shift)).isfinite().all()


def test_loss_excess_and_normaliser_equal_the_softmax_of_the_whole_row() -> None:
    logits_NC = 20.0 * torch.randn(6, 9, dtype=float64)
    labels_N = torch.randint(9, (6,))
    negatives_NC = logits_NC.scatter(1, labels_N[:, None], -torch.inf)
    target_N = logits_NC.gather(1, labels_N[:, None])[:, 0]
    loss_N, excess_N, normaliser_N = softmax_loss(negatives_NC.logsumexp(dim=1), target_N)
    probability_N = logits_NC.softmax(dim=1).gather(1, labels_N[:, None])[:, 0]
    expected_N = torch.nn.functional.cross_entropy(logits_NC, labels_N, reduction="none")
    torch.testing.assert_close(loss_N, expected_N, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(excess_N, probability_N - 1.0, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(normaliser_N, logits_NC.logsumexp(dim=1), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("excess", [-80.0, -20.0, -1.0, 0.0, 20.0, 160.0])
def test_loss_and_excess_keep_their_digits_when_the_probability_is_one_in_float32(excess: float) -> None:
    loss_N, minus_N, _ = softmax_loss(torch.tensor([excess]), torch.tensor([0.0]))
    wide = torch.tensor(excess, dtype=float64)
    assert float(loss_N) == pytest.approx(float(torch.log1p(wide.exp())), rel=1e-6)
    assert float(minus_N) == pytest.approx(-float(1.0 / (1.0 + torch.exp(-wide))), rel=1e-6)


def test_without_any_negative_there_is_nothing_to_lose() -> None:
    log_negatives_N = log_of_sum(torch.zeros(1), torch.tensor(0.0))
    loss_N, minus_N, normaliser_N = softmax_loss(log_negatives_N, torch.tensor([12.0], dtype=float64))
    assert float(log_negatives_N) == -math.inf
    assert (float(loss_N), float(minus_N), float(normaliser_N)) == (0.0, 0.0, 12.0)


def test_what_is_not_finite_shows_in_the_loss() -> None:
    loss_N, _, _ = softmax_loss(torch.tensor([torch.nan, torch.inf]), torch.zeros(2))
    assert not loss_N.isfinite().any()
