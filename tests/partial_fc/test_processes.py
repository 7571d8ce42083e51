"""Processes over gloo: the collectives, and a backbone in DDP beside the sharded classifier. The truth behind threads.

One launch per number of processes, since each start costs seconds: every process runs every check, and says which.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ports import free_port
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from partial_fc import (
    AdaCos,
    ArcFace,
    CosineSoftmax,
    Objective,
    P2SGrad,
    RowSGD,
    ShardedClassifier,
    World,
    current_world,
    sum_gradients,
)
from partial_fc.world import ProcessGroupWorld, process_group

C, D, INPUTS = 11, 6, 5
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "cosine_softmax": lambda: CosineSoftmax(16.0),
    "arcface": ArcFace,
    "adacos": lambda: AdaCos(C),
    "p2sgrad": P2SGrad,
    "beyond_chance": lambda: P2SGrad(negatives="beyond_chance"),
}


def backbone() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(INPUTS, 7), nn.Tanh(), nn.Linear(7, D)).double()


def batches(steps: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    sizes = [8, 5, 3][:steps]
    return [
        (
            torch.randn(size, INPUTS, generator=generator, dtype=torch.float64),
            torch.randint(C, (size,), generator=generator),
        )
        for size in sizes
    ]


def part(rows_N: Tensor, world: World) -> Tensor:
    """This rank's rows: uneven, and none on the last rank where there are more than two."""
    busy = world.size - 1 if world.size > 2 else world.size
    return rows_N.tensor_split(busy)[world.rank] if world.rank < busy else rows_N[:0]


def trained(name: str, world: World, model: nn.Module, row_optimizer: RowSGD | None) -> tuple[list[Tensor], Tensor]:
    """Three steps: the backbone's gradients of the last one, and this rank's class rows (or their gradient)."""
    head = ShardedClassifier(C, D, OBJECTIVES[name](), world=world, row_optimizer=row_optimizer, block_classes=2)
    head = head.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs_N, labels_N in batches():
        model.zero_grad()
        head.zero_grad()
        head(model(part(inputs_N, world)), part(labels_N, world)).backward()
        optimizer.step()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    rows_cD = head.weight.detach() if row_optimizer is not None else head.weight.grad
    assert rows_cD is not None
    return [grad.clone() for grad in grads], rows_cD


def check_training_equals_one_process(world: World) -> None:
    for name in OBJECTIVES:
        for row_optimizers in ((None, None), (RowSGD(0.1, 0.9), RowSGD(0.1, 0.9))):
            expected_grads, expected_rows_CD = trained(name, World(), backbone(), row_optimizers[0])
            replica = DistributedDataParallel(backbone())
            replica.register_comm_hook(None, sum_gradients)
            grads, rows_cD = trained(name, world, replica, row_optimizers[1])
            for grad, expected in zip(grads, expected_grads, strict=True):
                close(grad, expected)
            close(world.gather_rows(rows_cD), expected_rows_CD)


def check_without_the_hook_the_backbone_is_too_slow_by_the_number_of_ranks(world: World) -> None:
    """So that the check above is known to see the gradient contract broken."""
    (inputs_N, labels_N), *_ = batches()
    grads = []
    for hook in (True, False):
        replica = DistributedDataParallel(backbone())
        if hook:
            replica.register_comm_hook(None, sum_gradients)
        head = ShardedClassifier(C, D, CosineSoftmax(16.0), world=world).double()
        head(replica(part(inputs_N, world)), part(labels_N, world)).backward()
        grads.append([parameter.grad for parameter in replica.parameters()])
    for summed, averaged in zip(*grads, strict=True):
        assert summed is not None
        assert averaged is not None
        close(summed, world.size * averaged)


def check_all_sum(world: World) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.int64):
        mine = torch.tensor([world.rank + 1, 10]).to(dtype)
        total = world.all_sum(mine)
        assert total.tolist() == [world.size * (world.size + 1) / 2, 10 * world.size]
        assert mine.tolist() == [world.rank + 1, 10], "the input is left as it was"
    assert float(world.all_sum(torch.tensor(2.0))) == 2.0 * world.size
    assert world.all_sum(torch.empty(0)).shape == (0,)


def check_all_gather(world: World) -> None:
    mine = torch.tensor([[world.rank, 7]])
    assert world.all_gather(mine).tolist() == [[[rank, 7]] for rank in range(world.size)]
    assert world.all_gather(torch.tensor(float(world.rank))).tolist() == list(range(world.size))
    turned = torch.arange(6).view(2, 3).T + world.rank
    assert torch.equal(world.all_gather(turned)[-1], torch.arange(6).view(2, 3).T + world.size - 1)
    assert world.all_gather(torch.empty(0, 3)).shape == (world.size, 0, 3)


def check_gather_rows(world: World) -> None:
    for counts in ([3] * world.size, list(range(world.size)), [2, *[0] * (world.size - 1)], [0] * world.size):
        for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
            parts = [
                (10 * rank + torch.arange(2 * count).view(count, 2)).to(dtype) for rank, count in enumerate(counts)
            ]
            whole = torch.cat(parts)
            assert torch.equal(world.gather_rows(parts[world.rank], counts), whole)
            assert torch.equal(world.gather_rows(parts[world.rank]), whole)


def check_scatter_sum_rows(world: World) -> None:
    for counts in ([3] * world.size, list(range(world.size)), [2, *[0] * (world.size - 1)]):
        starts = [sum(counts[:rank]) for rank in range(world.size + 1)]
        whole = torch.arange(2.0 * sum(counts)).view(-1, 2)
        mine = world.scatter_sum_rows((world.rank + 1) * whole, counts)
        expected = math.comb(world.size + 1, 2) * whole[starts[world.rank] : starts[world.rank + 1]]
        assert torch.equal(mine, expected)


def check_the_scatter_is_the_adjoint_of_the_gather(world: World) -> None:
    """``Σ <gather(x), y> = Σ <x, scatter(y)>`` over the ranks, for any x and y."""
    counts = [rank % 3 for rank in range(world.size)]
    counts[0] = 2
    torch.manual_seed(world.rank)
    rows_n, cotangent_N = torch.randn(counts[world.rank], 4).double(), torch.randn(sum(counts), 4).double()
    left = world.all_sum((world.gather_rows(rows_n, counts) * cotangent_N).sum())
    right = world.all_sum((rows_n * world.scatter_sum_rows(cotangent_N, counts)).sum())
    close(left, right)


def check_a_wrong_label_on_the_last_rank_is_refused_here(world: World) -> None:
    head = ShardedClassifier(C, D, CosineSoftmax(16.0), world=world)
    with pytest.raises(ValueError, match=f"label 99 on rank {world.size - 1} is out of range"):
        head(torch.randn(1, D), torch.tensor([99 if world.rank == world.size - 1 else 0]))
    head(torch.randn(1, D), torch.tensor([0]))  # the ranks are still in step


def check_the_current_world_is_the_group(world: World) -> None:
    assert isinstance(current_world(), ProcessGroupWorld)
    assert ShardedClassifier(C, D, CosineSoftmax(16.0)).world.size == world.size
    world.barrier()


CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def process(rank: int, size: int, port: int, done: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        CUDA_VISIBLE_DEVICES="",
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    with process_group(timeout_seconds=60.0) as world:
        for check in CHECKS:
            check(world)
    Path(done, str(rank)).touch()


def launch(work: Callable[..., None], size: int, *arguments: object) -> None:
    """``work(rank, size, *arguments)`` in ``size`` processes; the first error is raised here.

    They fork from a server that has imported torch already and started no thread: an import each would cost seconds.
    """
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload(["torch", "torch.nn.parallel", "numpy"])
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call, attr-defined]
        work, args=(size, *arguments), nprocs=size, start_method="forkserver"
    )


@pytest.mark.processes
@pytest.mark.parametrize("size", [2, 3, 4])
def test_processes_agree_with_one_and_collectives_do_as_they_say(size: int, tmp_path: Path) -> None:
    launch(process, size, free_port(), str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(rank) for rank in range(size)]


def test_one_process_runs_the_same_training_without_a_process_group() -> None:
    for name in OBJECTIVES:
        grads, rows_CD = trained(name, World(), backbone(), None)
        again, rows_again_CD = trained(name, current_world(), backbone(), None)
        assert all(torch.equal(one, other) for one, other in zip(grads, again, strict=True))
        assert torch.equal(rows_CD, rows_again_CD)


@pytest.mark.processes
def test_one_process_with_a_group_of_one_equals_one_without(tmp_path: Path) -> None:
    """A group of one still talks through torch.distributed; WORLD_SIZE=1 alone would not make one."""
    launch(lone_process, 1, str(tmp_path / "store"))
    assert (tmp_path / "store.done").exists()


def lone_process(rank: int, size: int, store: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    check_training_equals_one_process(current_world())
    torch.distributed.destroy_process_group()
    Path(f"{store}.done").touch()
