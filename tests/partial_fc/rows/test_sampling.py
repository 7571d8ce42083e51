"""Sampled classes: the draw, and what a sampled step may touch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from problems import error
from simulation import on_ranks
from torch import Tensor

from partial_fc import CosFace, CosineSoftmax, P2SGrad, RowSGD, ShardedClassifier, World
from partial_fc.functional import reference
from partial_fc.rows.sampling import are_drawn, initial_rows
from partial_fc.rows.sharding import class_range

C, D = 200, 8


def drawn_classes(classes: range, rate: float, seed: int, step: int) -> Tensor:
    return are_drawn(classes, rate, seed, step).nonzero().squeeze(1) + classes.start


@pytest.mark.parametrize("size", [2, 3, 7, 300])
def test_the_draw_does_not_depend_on_the_number_of_ranks(size: int) -> None:
    shards = [drawn_classes(class_range(C, rank, size), 0.3, seed=1, step=5) for rank in range(size)]
    assert torch.equal(torch.cat(shards), drawn_classes(range(C), 0.3, seed=1, step=5))


def test_each_class_is_drawn_at_the_rate_and_independently_of_step_and_neighbour() -> None:
    """Counts over 400 steps of 2000 classes; bounds are 5 standard deviations."""
    steps, classes, rate = 400, 2000, 0.1
    drawn = torch.zeros(steps, classes)
    for step in range(steps):
        drawn[step, drawn_classes(range(classes), rate, seed=3, step=step)] = 1.0
    deviation = (rate * (1 - rate)) ** 0.5
    assert abs(float(drawn.mean()) - rate) < 5 * deviation / (steps * classes) ** 0.5
    assert (drawn.mean(dim=0) - rate).abs().max() < 5 * deviation / steps**0.5
    centred = (drawn - rate) / deviation
    for lagged in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1]):
        assert abs(float(lagged.mean())) < 5 / lagged.numel() ** 0.5


def test_another_seed_or_step_draws_other_classes() -> None:
    draws = [drawn_classes(range(C), 0.5, seed, step).tolist() for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(draw) for draw in draws}) == 4


@pytest.mark.parametrize("rate", [1e-30, 1.0])
def test_the_ends_of_the_rate_draw_no_class_and_every_class(rate: float) -> None:
    assert len(drawn_classes(range(C), rate, seed=0, step=0)) == (C if rate == 1.0 else 0)


@pytest.mark.parametrize("dim", [1, 3, 4, 7, 512])
def test_first_rows_are_unit_rows_and_functions_of_seed_and_class_alone(dim: int) -> None:
    rows_CD = initial_rows(range(70), dim, seed=2)
    torch.testing.assert_close(rows_CD.norm(dim=1), torch.ones(70), rtol=0, atol=3e-7)
    parts = [initial_rows(range(start, min(start + 9, 70)), dim, seed=2) for start in range(0, 70, 9)]
    assert torch.equal(torch.cat(parts), rows_CD)
    if dim > 1:
        assert not torch.equal(initial_rows(range(70), dim, seed=3), rows_CD)


def test_first_rows_are_the_same_across_the_chunks_they_are_made_in() -> None:
    rows = initial_rows(range(65530, 65545), 4, seed=2)
    assert torch.equal(initial_rows(range(65545), 4, seed=2)[65530:], rows)


def test_first_rows_point_in_all_directions_alike() -> None:
    """Mean, spread and cosines of 4000 rows within 5 standard deviations of a uniform sphere's."""
    rows_CD = initial_rows(range(4000), 16, seed=0).double()
    assert rows_CD.mean(dim=0).abs().max() < 5 * (1 / 16 / 4000) ** 0.5
    covariance = rows_CD.T @ rows_CD / 4000
    assert (covariance - torch.eye(16) / 16).abs().max() < 5 * (2.0**0.5 / 16) / 4000**0.5
    cosines = (rows_CD[::2] * rows_CD[1::2]).sum(dim=1)
    assert cosines.abs().max() < 0.95
    assert abs(float(cosines.mean())) < 5 * (1 / 16 / 2000) ** 0.5


def classifier(world: World | None = None, rate: float = 0.2, **options: Any) -> ShardedClassifier:
    return ShardedClassifier(C, D, CosineSoftmax(8.0), world=world or World(), sample_rate=rate, **options)


def batch(size: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(size, D), torch.randint(C, (size,))


def participants(labels_N: Tensor, rate: float, step: int) -> Tensor:
    """Which classes a step may touch: those of the batch and those drawn."""
    mask_C = torch.zeros(C, dtype=torch.bool)
    mask_C[labels_N] = True
    mask_C[drawn_classes(range(C), rate, seed=0, step=step)] = True
    return mask_C


def test_only_drawn_rows_and_their_momentum_change_to_the_bit() -> None:
    head = classifier(row_optimizer=RowSGD(0.1, 0.9))
    for step in range(4):
        before = {name: head.get_buffer(name).clone() for name in ["row_optimizer.momentum_cD"]}
        rows_CD = head.weight.detach().clone()
        embeddings_ND, labels_N = batch()
        head(embeddings_ND, labels_N).backward()
        taking_part_C = participants(labels_N, 0.2, step)
        changed_C = (head.weight.detach() != rows_CD).any(dim=1)
        moved_C = (head.get_buffer("row_optimizer.momentum_cD") != before["row_optimizer.momentum_cD"]).any(dim=1)
        assert torch.equal(changed_C, taking_part_C)
        assert torch.equal(moved_C, taking_part_C)


def test_without_a_row_optimizer_only_drawn_rows_have_a_gradient() -> None:
    head, (embeddings_ND, labels_N) = classifier(), batch()
    head(embeddings_ND, labels_N).backward()
    assert head.weight.grad is not None
    assert torch.equal(head.weight.grad.any(dim=1), participants(labels_N, 0.2, 0))


def test_a_sampled_step_is_the_whole_matrix_of_the_classes_drawn() -> None:
    head, (embeddings_ND, labels_N) = classifier(block_classes=7).double(), batch()
    leaf_ND = embeddings_ND.double().requires_grad_()
    loss = head(leaf_ND, labels_N)
    found = torch.autograd.grad(loss, (leaf_ND, head.weight))
    drawn = participants(labels_N, 0.2, 0).nonzero().squeeze(1)
    rows_CD = head.weight.detach().clone().requires_grad_()
    cos_NC = reference.cosines(leaf_ND, rows_CD[drawn])
    truth = reference.cosine_softmax(cos_NC, torch.searchsorted(drawn, labels_N), 8.0)
    expected = torch.autograd.grad(truth, (leaf_ND, rows_CD))
    assert error(loss.detach(), truth.detach()) < 1e-12
    assert error(found[0], expected[0]) < 1e-12
    assert error(found[1], expected[1]) < 1e-12


def test_p2sgrad_weighs_the_drawn_negatives_by_the_inverse_rate() -> None:
    head = ShardedClassifier(C, D, P2SGrad(0.5, slope_scale=1.0), world=World(), sample_rate=0.2).double()
    embeddings_ND, labels_N = batch()
    leaf_ND = embeddings_ND.double().requires_grad_()
    loss = head(leaf_ND, labels_N)
    drawn = participants(labels_N, 0.2, 0).nonzero().squeeze(1)
    cos_NC = reference.cosines(leaf_ND, head.weight[drawn])
    weight = 0.5 * (C - 1) / (len(drawn) - 1)
    truth = reference.p2sgrad(cos_NC, torch.searchsorted(drawn, labels_N), weight, 1.0)
    assert error(loss.detach(), truth.detach()) < 1e-12


@pytest.mark.parametrize("size", [2, 3, 8])
def test_a_sampled_run_does_not_depend_on_the_number_of_ranks(size: int) -> None:
    """Labels below 20 only, so that all ranks but the first are without positives."""
    given = [(torch.randn(9, D).double(), torch.randint(20, (9,))) for _ in range(3)]

    def work(world: World) -> Tensor:
        head = classifier(world, row_optimizer=RowSGD(0.1, 0.9)).double()
        for embeddings_ND, labels_N in given:
            part = embeddings_ND.tensor_split(world.size)[world.rank].clone().requires_grad_()
            head(part, labels_N.tensor_split(world.size)[world.rank]).backward()
        return head.weight.detach()

    assert error(torch.cat(on_ranks(size, work)), torch.cat(on_ranks(1, work))) < 1e-12


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("labels", [[5, 150, 5], [7, 7, 7]], ids=["two classes", "one class: no negative at all"])
def test_a_rate_that_draws_nothing_leaves_the_batchs_own_classes(size: int, labels: list[int]) -> None:
    embeddings_ND, labels_N = torch.randn(3, D).double(), torch.tensor(labels)

    def work(world: World) -> tuple[Tensor, Tensor]:
        head = ShardedClassifier(C, D, CosFace(64.0, 0.35), world=world, sample_rate=1e-30).double()
        part = embeddings_ND.tensor_split(world.size)[world.rank].clone().requires_grad_()
        loss = head(part, labels_N.tensor_split(world.size)[world.rank])
        loss.backward()
        assert part.grad is not None
        assert part.grad.isfinite().all()
        assert head.weight.grad is not None
        touched = head.weight.grad.any(dim=1).nonzero().squeeze(1) + head.shard.start
        return loss.detach(), touched

    found = on_ranks(size, work)
    present, places_N = torch.unique(labels_N, return_inverse=True)
    cos_NC = reference.cosines(embeddings_ND, initial_rows(range(C), D, 0).double()[present])
    truth = reference.cosface(cos_NC, places_N, 64.0, 0.35)
    assert all(torch.allclose(loss, truth, rtol=1e-12, atol=0) for loss, _ in found)
    touched = torch.cat([touched for _, touched in found])
    assert touched.tolist() == (present.tolist() if len(present) > 1 else [])


@pytest.mark.parametrize("objective", [CosFace(32.0, 0.35), P2SGrad()])
def test_a_sampled_step_with_targets_listed_in_full_as_on_a_gpu_is_the_same(
    objective: CosFace | P2SGrad, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings_ND, labels_N = torch.randn(9, D), torch.randint(C, (9,))

    def work(world: World) -> Tensor:
        head = ShardedClassifier(C, D, objective, world=world, sample_rate=0.2, row_optimizer=RowSGD(0.1, 0.9)).double()
        mine = [part.tensor_split(world.size)[world.rank] for part in (embeddings_ND.double(), labels_N)]
        head(mine[0].clone().requires_grad_(), mine[1]).backward()
        return head.weight.detach()

    listed = torch.cat(on_ranks(3, work))
    monkeypatch.setattr("partial_fc.rows.sharding._lists_all", lambda rows: True)
    assert error(torch.cat(on_ranks(3, work)), listed) < 1e-12
