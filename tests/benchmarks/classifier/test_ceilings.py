"""The floors of a step, the machine's rates, and the gauge of memory."""

from __future__ import annotations

import math
import mmap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import memory
from benchmarks.classifier.case import Case
from benchmarks.classifier.ceilings import (
    Ceilings,
    drawn_classes,
    held_bytes,
    measured_ceilings,
    operations,
    step_floors,
    traffic_bytes,
)
from benchmarks.memory import HighWaterMark, available_bytes, peak_memory
from partial_fc.rows.sampling import are_drawn

N, C, D = 512, 1000, 64
MEBIBYTE = 1 << 20
SOFTMAX, P2SGRAD = (Case(objective, C, embedding_dim=D, batch=N) for objective in ("cosface", "p2sgrad"))
CPU = torch.device("cpu")


def test_a_softmax_makes_three_products() -> None:
    assert operations(SOFTMAX) == 3 * 2 * N * C * D


def test_a_quadratic_loss_takes_the_shorter_road() -> None:
    assert operations(P2SGRAD) == 3 * C * D * D
    assert operations(replace(P2SGRAD, batch=8)) == 6 * 8 * C * D


def test_rows_and_state_are_read_and_written_once() -> None:
    assert traffic_bytes(P2SGRAD) == 16 * C * D
    assert held_bytes(P2SGRAD) == 8 * C * D


@pytest.mark.parametrize("rate", [0.02, 0.3, 1.0])
def test_the_drawn_classes_are_those_that_a_step_draws(rate: float) -> None:
    generator, counts = torch.Generator().manual_seed(0), []
    for trial in range(200):
        is_drawn = are_drawn(range(C), rate, 5, trial) if rate < 1 else torch.ones(C, dtype=torch.bool)
        is_drawn[torch.randint(C, (100,), generator=generator)] = True
        counts.append(int(is_drawn.sum()))
    assert drawn_classes(replace(SOFTMAX, batch=100, sample_rate=rate)) == pytest.approx(
        sum(counts) / len(counts), rel=0.02
    )


def test_the_floor_is_the_longer_of_computing_and_moving() -> None:
    fast_memory = step_floors(SOFTMAX, Ceilings(1e9, 2e9, 1e15))
    slow_memory = step_floors(SOFTMAX, Ceilings(1e15, 1e15, 1e6))
    assert fast_memory.seconds == fast_memory.compute_seconds == operations(SOFTMAX) / 1e9
    assert slow_memory.seconds == slow_memory.traffic_seconds == traffic_bytes(SOFTMAX) / 1e6
    four_gpus = replace(SOFTMAX, world=4, device="cuda")
    assert step_floors(four_gpus, Ceilings(1e9, 2e9, 1e15)).seconds == fast_memory.seconds / 4
    half = step_floors(replace(SOFTMAX, dtype="bfloat16"), Ceilings(1e9, 2e9, 1e15))
    assert half.seconds == fast_memory.seconds / 2


def test_beyond_chance_one_look_at_all_classes_is_the_least() -> None:
    beyond = replace(SOFTMAX, objective="p2sgrad_beyond_chance")
    assert operations(beyond) == 2 * N * C * D
    assert traffic_bytes(beyond) == 4 * C * D
    assert step_floors(beyond, Ceilings(1e9, 2e9, 1e15, 4e9)).seconds == operations(beyond) / 4e9
    assert step_floors(beyond, Ceilings(1e9, 2e9, 1e15)).seconds == operations(beyond) / 1e9


def test_the_machine_has_rates_and_the_better_of_two_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.planning.device_rates.MEASURING_SECONDS", 0.0)
    rates = measured_ceilings(CPU, matrix_size=64, stream_bytes=MEBIBYTE)
    for rate in (rates.float32_operations, rates.bfloat16_operations, rates.memory_bytes):
        assert 1e5 < rate < 1e16
    assert Ceilings(1, 5, 3).or_better(Ceilings(2, 4, 3, 6)) == Ceilings(2, 5, 3, 6)


def held_for_a_moment() -> None:
    """Pages of the kernel's own: what earlier tests freed, and glibc kept, would not count."""
    with mmap.mmap(-1, 64 * MEBIBYTE) as buffer:
        for page in range(0, len(buffer), mmap.PAGESIZE):
            buffer[page] = 1


def test_the_peak_counts_a_buffer_that_is_gone_and_forgets_it_when_told() -> None:
    gauge = HighWaterMark()
    start = gauge.now_bytes()
    held_for_a_moment()
    assert 60 * MEBIBYTE < gauge.peak_bytes() - start < 80 * MEBIBYTE
    gauge.begin()
    assert gauge.peak_bytes() - start < 16 * MEBIBYTE


def test_where_the_mark_cannot_be_reset_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "no such folder" / "clear_refs")
    with pytest.raises(OSError, match="clear_refs"):
        peak_memory(CPU)


def test_available_memory_is_less_than_there_is() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < available_bytes(CPU) < total < math.inf
