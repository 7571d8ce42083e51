"""One process as a world of its own. Several processes: test_processes.py."""

from __future__ import annotations

import pytest
import torch

from partial_fc.world import World, current_world, local_device, local_rank, process_group


def test_one_process_is_rank_0_of_1_and_every_collective_the_identity() -> None:
    world, rows = World(), torch.randn(3, 2)
    assert (world.rank, world.size) == (0, 1)
    assert torch.equal(world.all_sum(rows), rows)
    assert torch.equal(world.all_gather(rows), rows[None])
    assert torch.equal(world.gather_rows(rows), rows)
    assert torch.equal(world.gather_rows(rows, [3]), rows)
    assert torch.equal(world.scatter_sum_rows(rows, [3]), rows)
    world.barrier()


def test_without_a_process_group_the_current_world_is_one_process() -> None:
    assert type(current_world()) is World


def test_without_a_launcher_a_process_group_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with process_group() as world:
        assert type(world) is World
    assert not torch.distributed.is_initialized()
    assert local_rank() == 0


def test_the_local_rank_is_what_the_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_rank() == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_the_device_is_the_cpu() -> None:
    assert local_device() == torch.device("cpu")
