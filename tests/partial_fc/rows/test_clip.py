"""Gradients of rows that are clipped: in steepest slopes of one image, after the sum over the batch of all ranks."""

from __future__ import annotations

import math

import pytest
import torch
from problems import Problem, by_whole_matrix, cases, problem, uneven
from simulation import on_ranks
from torch import Tensor

from partial_fc import RowAdamW, RowSGD, ShardedClassifier, World
from partial_fc.functional import cosine
from partial_fc.rows.sphere import shortened_

C, D, N, RATE = 40, 8, 12, 0.02
FIXED = math.sqrt(2.0) * math.log(C - 1)
STEEPEST = {
    "cosine_softmax": 16.0,
    "cosface": 64.0,
    "arcface": 64.0,
    "arcface_straight_through": 64.0,
    "combined_margin": 32.0,
    "combined_margin_filtered": 12.0,
    "p2sgrad_as_printed": 1.0,
}


def moved(name: str, given: Problem, size: int, clip: float | None, gain: float = 1.0, near: str = "auto") -> Tensor:
    """The class rows after one step on ``size`` ranks."""
    ((embeddings_ND, labels_N),) = given.batches
    parts = uneven(N, size)

    def work(world: World) -> Tensor:
        optimizer = RowSGD(RATE, clip=clip)
        head = ShardedClassifier(
            C, D, cases(C, D)[name].make(), world=world, row_optimizer=optimizer, block_classes=7, near=near
        ).double()
        with torch.no_grad():
            head.weight.copy_(given.rows_CD[head.shard.start : head.shard.stop])
        mine = torch.split(embeddings_ND, parts)[world.rank].clone().requires_grad_()
        (gain * head(mine, torch.split(labels_N, parts)[world.rank])).backward()
        return head.weight.detach()

    return torch.cat(on_ranks(size, work))


def on_the_sphere(given: Problem) -> Problem:
    return Problem(torch.nn.functional.normalize(given.rows_CD), given.batches)


@pytest.mark.parametrize("name", cases(C, D))
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("near", ["auto", "never"])
@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_a_long_gradient_is_shortened_as_the_whole_matrix_says(name: str, size: int, near: str, gain: float) -> None:
    given = on_the_sphere(problem(C, D, (N,)))
    (truth,) = by_whole_matrix(cases(C, D)[name], given)
    grad_CD = N * gain * truth.grad_rows_CD
    length_C1 = grad_CD.norm(dim=1, keepdim=True)
    longest = float(length_C1[length_C1 > 0].median()) / gain
    limit = gain * longest
    assert 0 < (length_C1 > limit).sum() < (length_C1 > 0).sum()
    expected_CD = given.rows_CD - RATE * grad_CD * (limit / length_C1).clamp(max=1.0).nan_to_num(1.0)
    expected_CD = torch.nn.functional.normalize(expected_CD)
    found_CD = moved(name, given, size, longest / STEEPEST.get(name, FIXED), gain, near)
    torch.testing.assert_close(found_CD, expected_CD, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["adacos_current", "p2sgrad_balanced", "p2sgrad_beyond_chance_steady"])
def test_a_limit_that_no_gradient_reaches_changes_nothing(name: str) -> None:
    given = on_the_sphere(problem(C, D, (N,)))
    assert torch.equal(moved(name, given, 1, 1e6), moved(name, given, 1, None))


def test_no_step_is_longer_than_rate_times_limit() -> None:
    """However many images push a row."""
    rows_CD = torch.nn.functional.normalize(torch.randn(C, D, dtype=torch.float64))
    across_D = torch.nn.functional.normalize(cosine.tangent_gradient(rows_CD[1:2], rows_CD[:1]))[0]
    beside_ND = rows_CD[0] + across_D + 0.1 * torch.randn(N, D, dtype=torch.float64)
    given = Problem(rows_CD, [(beside_ND, torch.arange(1, N + 1))])
    turned = {
        clip: torch.linalg.vecdot(moved("p2sgrad_beyond_chance_steady", given, 1, clip), rows_CD).clamp(max=1.0).acos()
        for clip in (None, 0.5)
    }
    assert turned[None][0] > 2 * math.atan(RATE * 0.5 * FIXED), "a row that all push goes far"
    assert turned[0.5].max() <= math.atan(RATE * 0.5 * FIXED) + 1e-7


def test_rows_are_left_as_they_are_by_a_limit_that_is_not_a_number() -> None:
    rows_bD = torch.randn(5, 4)
    assert torch.equal(shortened_(rows_bD.clone(), torch.tensor(math.nan)), rows_bD)
    assert torch.equal(shortened_(torch.zeros(5, 4), torch.tensor(1.0)), torch.zeros(5, 4))


@pytest.mark.parametrize("make", [RowSGD, RowAdamW])
@pytest.mark.parametrize("clip", [0.0, -1.0, math.inf, math.nan])
def test_a_limit_that_is_none_is_refused(make: type[RowSGD | RowAdamW], clip: float) -> None:
    with pytest.raises(ValueError, match="clip="):
        make(0.1, clip=clip)
