"""P2SGrad: its loss, the paper's slope, and the collapse at λ = 1."""

from __future__ import annotations

import pytest
import torch

from partial_fc.functional import reference
from partial_fc.functional.p2sgrad import balanced_weight, chance_cosine, p2sgrad_loss

float64 = torch.float64


def loss_of_rows(cos_NC: torch.Tensor, labels_N: torch.Tensor, weight: float) -> torch.Tensor:
    target_N = cos_NC.gather(1, labels_N[:, None])[:, 0]
    return p2sgrad_loss(target_N, cos_NC.square().sum(dim=1) - target_N.square(), weight)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_the_loss_is_the_weighted_half_square(weight: float) -> None:
    cos_NC, labels_N = torch.rand(5, 9, dtype=float64) * 2 - 1, torch.randint(9, (5,))
    expected = reference.p2sgrad(cos_NC, labels_N, weight, 1.0)
    torch.testing.assert_close(loss_of_rows(cos_NC, labels_N, weight).mean(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_its_gradient_is_the_papers_formula_in_plain_loops(weight: float) -> None:
    embeddings_ND = torch.randn(5, 4, dtype=float64, requires_grad=True)
    rows_CD, labels_N = torch.randn(7, 4, dtype=float64, requires_grad=True), torch.randint(7, (5,))
    loss = loss_of_rows(reference.cosines(embeddings_ND, rows_CD), labels_N, weight).mean()
    found = torch.autograd.grad(loss, (embeddings_ND, rows_CD))
    expected = reference.p2sgrad_gradients(embeddings_ND.detach(), rows_CD.detach(), labels_N, weight)
    for grad, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(grad, truth, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("num_classes", "aligned_wins"), [(12, True), (16, False), (64, False)])
def test_as_printed_the_useless_state_is_the_lower_one_once_classes_exceed_twice_the_dimensions(
    num_classes: int, aligned_wins: bool
) -> None:
    """D = 8. Aligned on a tight frame: ½ λ (C/D - 1); separated, every cosine zero: ½."""
    dim = 8
    angles = torch.arange(num_classes, dtype=float64)[:, None] * torch.arange(1, dim // 2 + 1) * torch.pi * 2
    frame_CD = torch.cat([(angles / num_classes).cos(), (angles / num_classes).sin()], dim=1) / (dim / 2) ** 0.5
    labels_N = torch.arange(num_classes)
    for weight, expected in ((1.0, aligned_wins), (balanced_weight(num_classes, dim, 0.1), True)):
        aligned = loss_of_rows(frame_CD @ frame_CD.T, labels_N, weight).mean()
        assert float(aligned) == pytest.approx(0.5 * weight * (num_classes / dim - 1), rel=1e-12)
        separated = loss_of_rows(torch.zeros(num_classes, num_classes, dtype=float64), labels_N, weight).mean()
        assert float(separated) == 0.5
        assert (float(aligned) < float(separated) - 1e-12) == expected


def test_the_balanced_weight_falls_with_the_classes() -> None:
    assert balanced_weight(1000, 128, 0.1) == pytest.approx(0.0128)


@pytest.mark.parametrize("pull", ["fading", "steady"])
def test_beyond_chance_near_twins_push_each_other_and_a_push_by_all_does_not_see_them(pull: str) -> None:
    """A tight frame beside itself turned by 10 degrees is a tight frame: of all negatives' push nothing is left.

    Each image lies on its class, so that the pull at the target has no tangent part either.
    """
    dim, num_classes = 8, 64
    angles = torch.arange(num_classes // 2, dtype=float64)[:, None] * torch.arange(1, dim // 2 + 1) * torch.pi * 4
    turn = torch.tensor(10.0, dtype=float64).deg2rad()
    frames = [(angles / num_classes + shift) for shift in (0.0, turn)]
    rows_CD = torch.cat([torch.cat([f.cos(), f.sin()], dim=1) for f in frames]) / (dim / 2) ** 0.5
    labels_N = torch.arange(num_classes)
    embeddings_ND = rows_CD.clone().requires_grad_()
    cos_NC = reference.cosines(embeddings_ND, rows_CD)
    twin_N = (labels_N + num_classes // 2) % num_classes
    assert float(cos_NC[labels_N, twin_N].detach().min()) == pytest.approx(float(turn.cos()))
    (by_all_ND,) = torch.autograd.grad(loss_of_rows(cos_NC, labels_N, 1.0).sum(), embeddings_ND, retain_graph=True)
    assert by_all_ND.norm(dim=1).max() < 1e-12
    beyond = reference.p2sgrad_beyond_chance(cos_NC, labels_N, 0.9, 1.0, pull) * num_classes
    (grad_ND,) = torch.autograd.grad(beyond, embeddings_ND)
    away_N = -(grad_ND * (rows_CD[twin_N] - rows_CD)).sum(dim=1)
    assert away_N.max() < -1e-3, "every image goes away from the twin of its class"


def test_chance_is_where_the_nearest_of_random_directions_lies() -> None:
    """Of 20 draws of 4,000 directions in 256 dimensions, the mean; the formula is a little above it."""
    torch.manual_seed(0)
    nearest = [
        float((directions[0] @ directions[1:].T).max())
        for directions in (torch.nn.functional.normalize(torch.randn(4001, 256), dim=1) for _ in range(20))
    ]
    assert sum(nearest) / len(nearest) == pytest.approx(chance_cosine(4001, 256), rel=0.15)
