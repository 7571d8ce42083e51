"""The near road of a GPU, on a CPU that is taken for one: held against the block road."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from simulation import as_on_a_gpu, on_ranks, shares_left
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from partial_fc import P2SGrad, RowAdamW, RowOptimizer, RowSGD, ShardedClassifier, World
from partial_fc.sweeps import narrowed_sweep

C, D, N, STEPS = 90, 24, 20, 4


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_gpu(monkeypatch)


class SizesAsked(TorchDispatchMode):
    """Counts how often the host asks how many places of a mask are true. ``test_gpu.py`` counts all waiting."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func is torch.ops.aten.nonzero.default
        return func(*args, **(kwargs or {}))


def batches(steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(N, D, generator=generator, dtype=torch.float64), torch.randint(C, (N,), generator=generator))
        for _ in range(steps)
    ]


def head_of(**options: Any) -> ShardedClassifier:
    objective = P2SGrad(negatives="beyond_chance", chance_multiple=0.6)
    return ShardedClassifier(C, D, objective, **{"world": World(), "near": "always", **options})


def trained(size: int, *, dtype: torch.dtype = torch.float64, **options: Any) -> list[Tensor]:
    """Losses, figures, gradients, class rows and all state of some steps."""
    make = options.pop("make", lambda: None)

    def work(world: World) -> list[Tensor]:
        head = head_of(world=world, row_optimizer=make(), **options)
        if dtype == torch.float64:
            head = head.double()
        found = []
        for embeddings_ND, labels_N in batches():
            parts = [part.tensor_split(size) for part in (embeddings_ND.to(dtype), labels_N)]
            mine = parts[0][world.rank].clone().requires_grad_()
            loss = head(mine, parts[1][world.rank], [len(part) for part in parts[1]])
            loss.backward()
            assert mine.grad is not None
            found += [loss.detach(), head.statistics["near_per_image"], mine.grad]
            found += [] if head.weight.grad is None else [head.weight.grad.clone()]
        return [*found, head.weight.detach(), *head.buffers()]

    return [tensor for results in on_ranks(size, work) for tensor in results]


MAKERS: dict[str, Any] = {
    "torch": lambda: None,
    "sgd": lambda: RowSGD(0.1, 0.9, 0.01),
    "adamw": lambda: RowAdamW(0.1),
    "clipped": lambda: RowSGD(0.1, 0.9, clip=0.3),
}


@pytest.mark.parametrize("rows", MAKERS)
@pytest.mark.parametrize("rate", [1.0, 0.4], ids=["all classes", "drawn classes"])
@pytest.mark.parametrize("most", [0.0, 1.0], ids=["all looked at", "those found"])
@pytest.mark.parametrize("size", [1, 3])
def test_it_is_the_block_road_but_for_rounding(
    size: int, most: float, rate: float, rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(narrowed_sweep, "MOST_FOUND", most)
    options = {"make": MAKERS[rows], "sample_rate": rate, "block_classes": 17}
    left = shares_left(monkeypatch)
    found = trained(size, **options)
    for one, other in zip(found, trained(size, near="never", **options), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert [share < 1 for share in left] == [bool(most)] * STEPS * size


@pytest.mark.parametrize("product_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_so_it_is_in_low_precision(
    weight_dtype: torch.dtype, product_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look is made in bfloat16 whatever the products are: no class is missed."""
    monkeypatch.setattr(narrowed_sweep, "MOST_FOUND", 1.0)
    options: dict[str, Any] = {
        "make": lambda: RowSGD(0.1, 0.9),
        "weight_dtype": weight_dtype,
        "product_dtype": product_dtype,
        "dtype": torch.float32,
    }
    for one, other in zip(trained(2, **options), trained(2, near="never", **options), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_host_asks_once_a_step_how_many_were_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrowed_sweep, "MOST_FOUND", 1.0)
    head = head_of(row_optimizer=RowSGD(0.1, 0.9), block_classes=17)
    ((embeddings_ND, labels_N),) = batches(1)
    for _ in range(2):  # the first one brings the rows to unit length
        with SizesAsked() as asked:
            head(embeddings_ND.float().requires_grad_(), labels_N, [N]).backward()
    assert asked.number == 1


@pytest.mark.parametrize("where", ["embedding", "row"])
@pytest.mark.parametrize("number", [math.nan, -math.nan, math.inf])
def test_what_is_not_finite_gives_such_a_loss_and_moves_no_row(number: float, where: str) -> None:
    optimizer: RowOptimizer = RowSGD(0.1, 0.9)
    head = head_of(row_optimizer=optimizer)
    embeddings_ND, labels_N = torch.randn(9, D), torch.randint(C - 1, (9,))
    head(embeddings_ND, labels_N, [9])
    with torch.no_grad():
        (embeddings_ND if where == "embedding" else head.weight)[-1, 3] = number
    before = head.weight.detach().clone()
    loss = head(embeddings_ND.requires_grad_(), labels_N, [9])
    loss.backward()
    assert loss.isnan()
    assert torch.equal(head.weight[:-1], before[:-1])


def test_a_rank_without_classes_and_one_of_which_no_class_is_near_take_part() -> None:
    """5 ranks for 3 classes, the images near the first two."""
    rows_CD, images_ND = torch.eye(3, D), torch.eye(2, D)[[0, 1, 0, 1, 0]] + 0.3 * torch.eye(2, D)[[1, 0, 1, 0, 1]]

    def work(near: str, world: World) -> list[Tensor]:
        objective, optimizer = P2SGrad(negatives="beyond_chance"), RowSGD(0.1, 0.9)
        head = ShardedClassifier(3, D, objective, world=world, near=near, row_optimizer=optimizer)
        with torch.no_grad():
            head.weight.copy_(rows_CD[head.shard.start : head.shard.stop])
        mine = images_ND[world.rank : world.rank + 1].clone().requires_grad_()
        loss = head(mine, torch.zeros(1, dtype=torch.int64), [1] * 5)
        loss.backward()
        assert mine.grad is not None
        return [loss.detach(), mine.grad, head.weight.detach()]

    found, expected = (on_ranks(5, partial(work, near)) for near in ("always", "never"))
    for near, blocks in zip(found, expected, strict=True):
        for one, other in zip(near, blocks, strict=True):
            torch.testing.assert_close(one, other)
        assert near[0] > 0
