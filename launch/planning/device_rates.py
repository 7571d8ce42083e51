"""What a device does at its best, measured now: for plans, and for the floors of the benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}
STREAM_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}  # far more than any cache holds
MEASURING_SECONDS = 0.3
FEWEST_REPEATS = 4


def product_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations per second of a product of two square matrices; of int8 into int32."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    multiply = torch._int_mm if dtype == torch.int8 else torch.mm
    product = torch.empty_like(left, dtype=torch.int32 if dtype == torch.int8 else dtype)
    return 2.0 * size**3 / _shortest_seconds(lambda: multiply(left, right, out=product), device)


def stream_rate(device: torch.device, elements: int) -> float:
    """Bytes per second of ``a += b`` in float32.

    Two arrays are read and one is written where it was read: no cache line is fetched only to be replaced.
    """
    total, part = (torch.ones(elements, device=device) for _ in range(2))
    return 3.0 * 4.0 * elements / _shortest_seconds(lambda: total.add_(part), device)


def copy_rate(device: torch.device, elements: int) -> float:
    """Bytes per second of a copy from ``device`` into the host's memory, pinned for a GPU and touched before."""
    there = torch.ones(elements, device=device)
    here = torch.zeros(elements, pin_memory=there.is_cuda)
    return 4.0 * elements / _shortest_seconds(lambda: here.copy_(there, non_blocking=True), device)


def _shortest_seconds(work: Callable[[], object], device: torch.device) -> float:
    work()
    taken: list[float] = []
    while len(taken) < FEWEST_REPEATS or sum(taken) < MEASURING_SECONDS:
        _finish(device)
        began = time.perf_counter()
        work()
        _finish(device)
        taken.append(time.perf_counter() - began)
    return min(taken)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
