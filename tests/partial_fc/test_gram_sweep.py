"""The Gram form: P2SGrad without a single cosine, held against the block form and the whole matrix."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from problems import Problem, Solution, by_ranks, by_whole_matrix, cases, error, problem, trained
from simulation import on_ranks
from torch import Tensor

from partial_fc import P2SGrad, RowSGD, ShardedClassifier, World
from partial_fc.functional.cosine import unit_rows
from partial_fc.functional.gram import add_centred_gram, centred_gram, symmetric
from partial_fc.sweeps.block import Block
from partial_fc.sweeps.gram_sweep import GramSweep

C, D = 23, 8
LOSSES = ["p2sgrad_balanced", "p2sgrad_as_printed"]


def head_of(num_classes: int = C, dim: int = D, **options: Any) -> ShardedClassifier:
    options = {"world": World(), "row_optimizer": RowSGD(0.1, 0.9), "gram": "always", **options}
    return ShardedClassifier(num_classes, dim, P2SGrad(), **options)


def batches_of(steps: int, size: int = 20, num_classes: int = C, dim: int = D) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(size, dim), torch.randint(num_classes, (size,))) for _ in range(steps)]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1, 2, 3, 8, 128])
@pytest.mark.parametrize("block_classes", [1, 7, 1000])
def test_the_gram_road_is_the_block_road_to_float64_rounding(name: str, size: int, block_classes: int) -> None:
    given = problem(C, D, (9, 6))
    case = cases(C, D)[name]
    torch.manual_seed(0)  # of the batch's split
    roads = [by_ranks(case, given, size, block_classes=block_classes, gram=road) for road in ("always", "never")]
    for by_gram, by_blocks in zip(*roads, strict=True):
        for found, expected in zip(by_gram, by_blocks, strict=True):
            assert error(found, expected) < 1e-12


def worst(found: list[Solution], truths: list[Solution]) -> list[float]:
    pairs = [zip(*pair, strict=True) for pair in zip(found, truths, strict=True)]
    return [max(error(*parts) for parts in step) for step in zip(*pairs, strict=True)]


@pytest.mark.parametrize("name", LOSSES)
def test_in_bfloat16_products_it_is_no_less_exact_than_the_blocks(name: str) -> None:
    given = problem(300, 32, (200, 200), near=1.0)
    given = Problem(given.rows_CD.float().double(), [(x.float().double(), y) for x, y in given.batches])
    case, tolerance = cases(300, 32)[name], 2 * torch.finfo(torch.bfloat16).eps
    truths = by_whole_matrix(case, given)
    options: dict[str, Any] = {"dtype": torch.float32, "product_dtype": torch.bfloat16, "block_classes": 64}
    by_gram, by_blocks = (worst(by_ranks(case, given, 1, gram=road, **options), truths) for road in ("always", "never"))
    for gram_error, block_error in zip(by_gram, by_blocks, strict=True):
        assert gram_error <= block_error + tolerance


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [1, 7, 1000])
def test_a_gram_matrix_summed_by_blocks_is_no_less_exact_than_the_whole_product(dtype: torch.dtype, width: int) -> None:
    unit_mD = unit_rows(torch.randn(500, 30, dtype=torch.float64))[0].to(dtype)
    exact_mD = unit_mD.to(torch.float64)
    truth_DD = exact_mD.T @ exact_mD - 500 / 30 * torch.eye(30)
    upper_DD = torch.zeros(30, 30, dtype=torch.promote_types(dtype, torch.float32))
    for block_bD in torch.split(unit_mD, width):
        add_centred_gram(upper_DD, block_bD)
    slow_DD = (unit_mD.T @ unit_mD).to(upper_DD.dtype) - 500 / 30 * torch.eye(30, dtype=upper_DD.dtype)
    assert error(symmetric(upper_DD), truth_DD) <= error(slow_DD, truth_DD) + 10 * torch.finfo(upper_DD.dtype).eps


def test_centring_keeps_digits_that_bfloat16_would_round_away() -> None:
    """Of 4,000 rows in 8 dimensions the diagonal is 500: rounded with it, what the gradient needs would be lost."""
    unit_mD = unit_rows(torch.randn(4000, 8, dtype=torch.float64))[0].bfloat16()
    truth_DD = centred_gram(unit_mD.double())
    upper_DD = torch.zeros(8, 8)
    add_centred_gram(upper_DD, unit_mD)
    plain_DD = (unit_mD.T @ unit_mD).double() - 500.0 * torch.eye(8)
    assert error(symmetric(upper_DD), truth_DD) < 0.2 * error(plain_DD, truth_DD)


def test_a_dimension_smaller_than_the_strips_works() -> None:
    unit_mD = unit_rows(torch.randn(9, 3, dtype=torch.float64))[0]
    upper_DD = torch.zeros(3, 3, dtype=torch.float64)
    add_centred_gram(upper_DD, unit_mD)
    torch.testing.assert_close(symmetric(upper_DD), centred_gram(unit_mD))


@pytest.mark.parametrize("product_dtype", [None, torch.bfloat16], ids=str)
def test_the_carried_gram_matrix_is_bitwise_the_one_made_anew(product_dtype: torch.dtype | None) -> None:
    """What a restore costs: one more read of the rows, and no bit of the result."""
    torch.manual_seed(0)
    given = batches_of(6, num_classes=700, dim=64)
    carried = head_of(700, 64, product_dtype=product_dtype, block_classes=128)
    forgetful = head_of(700, 64, product_dtype=product_dtype, block_classes=128)
    expected = trained(carried, given)
    found = []
    for step in given:
        forgetful.load_state_dict(copy.deepcopy(forgetful.state_dict()))
        found += trained(forgetful, [step])
    assert [loss.item() for loss in found] == [loss.item() for loss in expected]
    assert torch.equal(forgetful.weight, carried.weight)
    assert torch.equal(
        forgetful.get_buffer("row_optimizer.momentum_cD"), carried.get_buffer("row_optimizer.momentum_cD")
    )


def test_rows_changed_by_hand_do_not_meet_the_old_gram_matrix() -> None:
    head, given = head_of(), batches_of(2)
    trained(head, given[:1])
    with torch.no_grad():
        head.weight.copy_(head.weight.flip(0))
    fresh = head_of()
    fresh.load_state_dict(head.state_dict())
    assert torch.equal(trained(head, given[1:])[0], trained(fresh, given[1:])[0])


def test_a_step_reads_and_writes_the_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by the sweeps over the shard: the first step has one more, for the Gram matrix it starts from."""
    sweeps: list[int] = []
    blocks = GramSweep._blocks

    def counted(sweep: GramSweep) -> Iterator[Block]:
        sweeps.append(1)
        return blocks(sweep)

    monkeypatch.setattr(GramSweep, "_blocks", counted)
    head = head_of()
    for batch, expected in zip(batches_of(3), [2, 1, 1], strict=True):
        sweeps.clear()
        trained(head, [batch])
        assert len(sweeps) == expected


def test_the_form_is_chosen_by_what_it_costs() -> None:
    head = head_of(gram="auto")
    assert head._goes_by_gram(4, 8)
    assert not head._goes_by_gram(3, 8)
    assert not ShardedClassifier(C, D, cases(C, D)["cosface"].make(), world=World(), gram="always")._goes_by_gram(9, 8)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_sampled_step_takes_the_gram_matrix_of_the_drawn_rows(size: int) -> None:
    """It is the estimate Σ_drawn ŵŵᵀ (C-1)/(drawn-1) of the negatives' Σ ŵŵᵀ, as the block form's is."""
    given = [(x.double(), y) for x, y in batches_of(3)]

    def work(road: str) -> list[Tensor]:
        def rank(world: World) -> Tensor:
            head = head_of(world=world, gram=road, sample_rate=0.4).double()
            parts = [(x.tensor_split(size)[world.rank], y.tensor_split(size)[world.rank]) for x, y in given]
            trained(head, parts)
            return head.weight.detach()

        return on_ranks(size, rank)

    assert error(torch.cat(work("always")), torch.cat(work("never"))) < 1e-12
