"""Many ranks as threads of one process, and a CPU taken for a GPU: everything else is the real code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from partial_fc import late_answer
from partial_fc.rows import sharding
from partial_fc.slopes import Near
from partial_fc.sweeps.narrowed_sweep import NarrowedSweep
from partial_fc.world import World

T = TypeVar("T")


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the code take the ways of a GPU, whose results the host knows late."""
    monkeypatch.setattr(late_answer, "is_known_late", lambda tensor: True)
    monkeypatch.setattr(sharding, "_lists_all", lambda rows: True)


def shares_left(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Which share of its classes each step's look leaves, on each rank, from now on."""
    left, own_near = list[float](), NarrowedSweep.own_near

    def watched(sweep: NarrowedSweep, above: float) -> Near:
        before, near = sweep.num_columns, own_near(sweep, above)
        left.append(sweep.num_columns / before)
        return near

    monkeypatch.setattr(NarrowedSweep, "own_near", watched)
    return left


class _Exchange:
    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60.0)
        self.slots: list[Tensor] = [torch.empty(0)] * size


class ThreadWorld(World):
    def __init__(self, rank: int, size: int, exchange: _Exchange) -> None:
        self.rank, self.size, self.exchange = rank, size, exchange

    def _all(self, tensor: Tensor) -> list[Tensor]:
        self.exchange.slots[self.rank] = tensor
        self.exchange.barrier.wait()
        tensors = list(self.exchange.slots)
        self.exchange.barrier.wait()
        return tensors

    def all_sum(self, tensor: Tensor) -> Tensor:
        return torch.stack(self._all(tensor)).sum(dim=0)

    def all_gather(self, tensor: Tensor) -> Tensor:
        return torch.stack(self._all(tensor))

    def gather_rows(self, rows_n: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        return torch.cat(self._all(rows_n))

    def scatter_sum_rows(self, rows_N: Tensor, counts: Sequence[int]) -> Tensor:
        return torch.split(self.all_sum(rows_N), list(counts))[self.rank]

    def barrier(self) -> None:
        self.exchange.barrier.wait()


def on_ranks(size: int, work: Callable[[World], T]) -> list[T]:
    """``work(world)`` on every one of ``size`` ranks; the results in rank order. The first error is raised again."""
    exchange = _Exchange(size)
    results: list[T | BaseException] = [RuntimeError("did not run")] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadWorld(rank, size, exchange))
        except BaseException as error:
            results[rank] = error
            exchange.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    if errors:
        raise errors[0]
    return [result for result in results if not isinstance(result, BaseException)]
