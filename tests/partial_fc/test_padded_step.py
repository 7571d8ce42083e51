"""A sampled step that waits for no device: the drawn columns among others that fill up, against the drawn alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from simulation import as_on_a_gpu, on_ranks
from torch import Tensor

from partial_fc import (
    AdaCos,
    CosFace,
    CosineSoftmax,
    Objective,
    P2SGrad,
    RowAdamW,
    RowOptimizer,
    RowSGD,
    ShardedClassifier,
    World,
)
from partial_fc.rows.sampling import are_drawn, drawn_columns, most_columns, padded_columns
from partial_fc.rows.sharding import owned_targets

C, D, N, RATE = 1000, 8, 24, 0.05
OBJECTIVES: dict[str, Callable[[int], Objective]] = {
    "adacos": AdaCos,
    "cosface": lambda num_classes: CosFace(),
    "p2sgrad": lambda num_classes: P2SGrad(),
    "beyond_chance": lambda num_classes: P2SGrad(negatives="beyond_chance", chance_multiple=0.4),
}
ROWS: dict[str, Callable[[], RowOptimizer | None]] = {
    "torch": lambda: None,
    "sgd": lambda: RowSGD(0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda: RowAdamW(0.01),
    "clipped": lambda: RowSGD(0.1, momentum=0.9, clip=0.3),
    "bfloat16": lambda: RowSGD(0.1, momentum=0.9, state_dtype=torch.bfloat16),
}


@pytest.fixture
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_gpu(monkeypatch)


def trained(
    objective: str, rows: str, size: int, *, num_classes: int = C, labels_below: int | None = None, **options: Any
) -> list[Tensor]:
    """Losses, gradients, class rows and all state of some steps in float64, over ``size`` ranks."""
    generator = torch.Generator().manual_seed(7)
    given = [
        (torch.randn(N, D, generator=generator), torch.randint(labels_below or num_classes, (N,), generator=generator))
        for _ in range(3)
    ]
    options = {"sample_rate": RATE, **options}

    def work(world: World) -> list[Tensor]:
        head = ShardedClassifier(
            num_classes, D, OBJECTIVES[objective](num_classes), world=world, row_optimizer=ROWS[rows](), **options
        ).double()
        found = []
        for embeddings_ND, labels_N in given:
            parts = [part.tensor_split(size) for part in (embeddings_ND.double(), labels_N)]
            mine = parts[0][world.rank].clone().requires_grad_()
            loss = head(mine, parts[1][world.rank], [len(part) for part in parts[1]])
            loss.backward()
            assert mine.grad is not None
            found += [loss.detach(), mine.grad, *([] if head.weight.grad is None else [head.weight.grad.clone()])]
        return [*found, head.weight.detach(), *head.buffers()]

    return [tensor for results in on_ranks(size, work) for tensor in results]


def assert_twins(monkeypatch: pytest.MonkeyPatch, *case: Any, **options: Any) -> None:
    exact = trained(*case, **options)
    as_on_a_gpu(monkeypatch)
    for found, expected in zip(trained(*case, **options), exact, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_learns_what_a_step_of_the_drawn_alone_learns(
    objective: str, rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_twins(monkeypatch, objective, rows, 3)


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        ("adacos", {"block_classes": 37, "cosines": "keep"}),
        ("p2sgrad", {"block_classes": 37, "gram": "always"}),
        ("p2sgrad", {"block_classes": 37, "gram": "never"}),
        ("cosface", {"weight_dtype": torch.bfloat16}),
    ],
    ids=["kept cosines", "gram", "no gram", "bfloat16"],
)
def test_it_does_so_in_blocks_and_in_the_gram_form(
    objective: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_twins(monkeypatch, objective, "sgd", 1, **options)


@pytest.mark.parametrize("objective", ["cosface", "p2sgrad"])
@pytest.mark.parametrize(
    ("size", "case"),
    [
        (1, {"sample_rate": 0.999}),
        (2, {"sample_rate": 1e-30}),
        (3, {"labels_below": 20}),
        (1, {"labels_below": 1, "sample_rate": 1e-30}),
        (1, {"sample_rate": 0.001}),
        (7, {"num_classes": 5, "sample_rate": 0.3}),
        (2, {"num_classes": 40, "sample_rate": 0.3}),
    ],
    ids=["all drawn", "none drawn", "a shard has all", "no negative", "few", "shards of one and none", "small"],
)
def test_it_does_so_at_the_ends_of_the_rate_and_on_tiny_shards(
    objective: str, size: int, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_twins(monkeypatch, objective, "sgd", size, **case)


@pytest.mark.usefixtures("_as_on_a_gpu")
@pytest.mark.parametrize("rows", ["sgd", "adamw", "bfloat16"])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_and_state_of_the_columns_that_fill_up_stay_to_the_bit(rows: str, weight_dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"row_optimizer": ROWS[rows](), "weight_dtype": weight_dtype, "sample_rate": RATE}
    head = ShardedClassifier(C, D, CosineSoftmax(8.0), world=World(), **options)
    for step in range(4):
        before = [tensor.detach().clone() for tensor in (head.weight, *head.buffers())]
        embeddings_ND, labels_N = torch.randn(N, D, requires_grad=True), torch.randint(C, (N,))
        head(embeddings_ND, labels_N, [N]).backward()
        take_part_C = are_drawn(range(C), RATE, 0, step)
        take_part_C[labels_N] = True
        for now, then in zip((head.weight.detach(), *head.buffers()), before, strict=True):
            changed_C = (now != then).view(C, -1).any(dim=1)
            assert not (changed_C & ~take_part_C).any()
            assert changed_C.sum() > 0.9 * take_part_C.sum()


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_the_columns_are_the_drawn_and_as_many_others_as_the_sizes_ask_for_each_once_in_rising_order() -> None:
    shard = range(100, C)
    for step in range(20):
        targets = owned_targets(torch.randint(C, (N,)), shard)
        columns, take_part = padded_columns(targets, shard, RATE, 3, step, batch=N)
        assert len(columns) == most_columns(len(shard), RATE, N) < len(shard)
        assert (columns.diff() > 0).all()
        assert torch.equal(columns[take_part], drawn_columns(targets, shard, RATE, 3, step))


@pytest.mark.parametrize("num_columns", [1, 100, 10_000, 300_000])
@pytest.mark.parametrize("rate", [1e-6, 0.01, 0.1, 0.5, 0.999])
def test_more_classes_are_drawn_than_there_is_room_for_once_in_a_million_million_steps(
    num_columns: int, rate: float
) -> None:
    """By the binomial distribution's own tail."""
    most = most_columns(num_columns, rate, batch=0)
    if most == num_columns:
        return
    counts = torch.arange(most + 1, num_columns + 1, dtype=torch.float64)
    log_choices = math.lgamma(num_columns + 1) - torch.lgamma(counts + 1) - torch.lgamma(num_columns - counts + 1)
    log_chances = log_choices + counts * math.log(rate) + (num_columns - counts) * math.log1p(-rate)
    assert log_chances.logsumexp(dim=0) < math.log(1e-12)
    deviation = math.sqrt(num_columns * rate * (1 - rate))
    assert most < num_columns * rate + 8 * deviation + 20, "and there is not much more room than that"
