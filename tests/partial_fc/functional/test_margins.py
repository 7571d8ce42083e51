"""Margins: values by arccos, derivatives by autograd, and the ends of the range."""

from __future__ import annotations

import math

import pytest
import torch

from partial_fc.functional.margins import arcface_target, combined_target, cosface_target

COS_N = torch.linspace(-0.999, 0.999, 41, dtype=torch.float64)


def test_cosface_subtracts_the_margin_and_leaves_the_slope() -> None:
    margined_N, derivative_N = cosface_target(COS_N, 0.35)
    assert torch.equal(margined_N, COS_N - 0.35)
    assert torch.equal(derivative_N, torch.ones_like(COS_N))


@pytest.mark.parametrize("margin", [0.0, 0.3, 0.5, 1.5])
def test_arcface_adds_the_margin_to_the_angle_and_gives_its_true_derivative(margin: float) -> None:
    cos_N = COS_N.clone().requires_grad_()
    expected_N = torch.cos(torch.arccos(cos_N) + margin)
    (slope_N,) = torch.autograd.grad(expected_N.sum(), cos_N)
    margined_N, derivative_N = arcface_target(COS_N, margin)
    torch.testing.assert_close(margined_N, expected_N.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(derivative_N, slope_N, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("m1", "m2", "m3"), [(1.0, 0.5, 0.0), (1.35, 0.0, 0.0), (1.2, 0.3, 0.2), (2.0, 0.0, 0.1)])
def test_the_combined_margin_and_its_true_derivative(m1: float, m2: float, m3: float) -> None:
    cos_N = COS_N.clone().requires_grad_()
    expected_N = torch.cos(m1 * torch.arccos(cos_N) + m2) - m3
    (slope_N,) = torch.autograd.grad(expected_N.sum(), cos_N)
    margined_N, derivative_N = combined_target(COS_N, m1, m2, m3)
    torch.testing.assert_close(margined_N, expected_N.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(derivative_N, slope_N, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("angle_radians", "ratio"), [(0.1, 5.66), (0.5, 1.76), (2.0, 0.66)])
def test_the_ratio_of_sines_that_the_widespread_port_leaves_out(angle_radians: float, ratio: float) -> None:
    cos_N = torch.tensor([math.cos(angle_radians)], dtype=torch.float64)
    assert float(arcface_target(cos_N, 0.5)[1]) == pytest.approx(ratio, abs=0.005)
    assert float(arcface_target(cos_N, 0.5, straight_through=True)[1]) == 1.0


def test_straight_through_has_the_same_value() -> None:
    assert torch.equal(arcface_target(COS_N, 0.5, straight_through=True)[0], arcface_target(COS_N, 0.5)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.004, -1.004])
def test_the_ends_of_the_range_and_what_rounding_puts_beyond_are_finite(dtype: torch.dtype, cosine: float) -> None:
    margined_N, derivative_N = arcface_target(torch.tensor([cosine], dtype=dtype), 0.5)
    assert float(margined_N) == pytest.approx(math.copysign(math.cos(0.5), cosine), rel=1e-6)
    assert derivative_N.isfinite().all()


def test_near_one_float32_keeps_the_sine() -> None:
    """1 - c² rounds c² to float32 first; (1 - c)(1 + c) does not."""
    cos_N = torch.linspace(0.003, 0.1, 40).cos()
    wide_N = arcface_target(cos_N.double(), 0.5)[1]
    torch.testing.assert_close(arcface_target(cos_N, 0.5)[1].double(), wide_N, rtol=1e-6, atol=0)
