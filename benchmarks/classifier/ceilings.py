"""What a step cannot go below on this machine: the rates it has, and the least work that a loss leaves to do.

Legend: ``N`` rows of the global batch, ``C`` classes, ``D`` dimensions. An operation is an addition or a
multiplication; a product of (N, D) with (D, C) has 2·N·C·D of them.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch

from benchmarks.classifier.case import DTYPES, Case
from launch.planning.device_rates import MATRIX_SIZE, STREAM_BYTES, product_rate, stream_rate
from partial_fc.sweeps.near_sweep import look_dtype


@dataclass(frozen=True)
class Ceilings:
    """The best that this machine showed: operations of a square product, and bytes of `a += b`, each per second."""

    float32_operations: float
    bfloat16_operations: float
    memory_bytes: float
    int8_operations: float = 0.0  # of a record from before it was measured

    def or_better(self, other: Ceilings) -> Ceilings:
        """The better of two measurements of one machine, rate by rate: what it can do, whatever else it did."""
        return Ceilings(*map(max, astuple(self), astuple(other)))


@dataclass(frozen=True)
class Floors:
    """The least that a step takes, computing and moving the rows."""

    compute_seconds: float
    traffic_seconds: float

    @property
    def seconds(self) -> float:
        """The longer of the two: both at once at best."""
        return max(self.compute_seconds, self.traffic_seconds)


def step_floors(case: Case, ceilings: Ceilings) -> Floors:
    """The floors of one of our steps; GPUs have these ceilings each, ranks on a CPU share them."""
    devices = case.world if case.device == "cuda" else 1
    rate = ceilings.bfloat16_operations if case.dtype == "bfloat16" else ceilings.float32_operations
    if case.objective == "p2sgrad_beyond_chance" and case.device == "cpu":
        rate = ceilings.int8_operations or rate
    return Floors(operations(case) / (rate * devices), traffic_bytes(case) / (ceilings.memory_bytes * devices))


def drawn_classes(case: Case) -> float:
    """How many classes a step is expected to touch: those drawn, and the batch's own among the others."""
    missed = (1.0 - case.sample_rate) * (1.0 - 1.0 / case.num_classes) ** case.batch
    return case.num_classes * (1.0 - missed)


def operations(case: Case) -> float:
    """Cosines, rows' gradients and embeddings' gradients, 6·N·C·D; or, for P2SGrad, whose slopes are linear in the
    cosines, two Gram matrices and their product with every row: 4·C·D², of which the symmetry of the first leaves
    3·C·D²; or, beyond chance, the look at all classes alone, 2·N·C·D.
    """
    blocks = 6.0 * case.batch * drawn_classes(case) * case.embedding_dim
    gram = 3.0 * drawn_classes(case) * case.embedding_dim**2
    shorter = {"p2sgrad": min(blocks, gram), "p2sgrad_beyond_chance": blocks / 3}
    return shorter.get(case.objective, blocks)


def traffic_bytes(case: Case) -> float:
    """The touched rows and their optimizer state, each read once and written once; beyond chance, rows read once."""
    if case.objective == "p2sgrad_beyond_chance":
        return drawn_classes(case) * case.embedding_dim * DTYPES[case.weight_dtype].itemsize
    return 2.0 * drawn_classes(case) * row_bytes(case)


def held_bytes(case: Case) -> float:
    """The weights and the optimizer state."""
    return float(case.num_classes * row_bytes(case))


def row_bytes(case: Case) -> int:
    """One row and its optimizer state."""
    moments = 2 if case.row_optimizer == "adamw" else int(case.momentum > 0)
    return case.embedding_dim * (DTYPES[case.weight_dtype].itemsize + moments * DTYPES[case.state_dtype].itemsize)


def needed_bytes(case: Case) -> float:
    """A generous guess of what all contenders and ranks hold together at their peaks: a guard, not a measurement.

    The dense one: weights, momentum, gradient and two more of their size in the making of it; of the matrix of logits
    four.
    """
    ours = held_bytes(case) * (3.0 if case.row_optimizer == "none" else 1.25)
    ours += 4.0 * case.batch * case.num_classes if case.cosines == "keep" else 0.0
    if case.against is None:
        return ours
    if case.against_num_classes is not None:
        return ours * (1 + case.against_num_classes / case.num_classes)
    drawn = case.num_classes * case.rate_against
    return ours + 4.0 * case.embedding_dim * (3 * case.num_classes + 2 * drawn) + 16.0 * case.batch * drawn


def measured_ceilings(device: torch.device, *, matrix_size: int = 0, stream_bytes: int = 0) -> Ceilings:
    """What `device` does at its best within about a second, with all the threads that this process has."""
    size = matrix_size or MATRIX_SIZE[device.type]
    return Ceilings(
        product_rate(device, torch.float32, size),
        product_rate(device, torch.bfloat16, size),
        stream_rate(device, (stream_bytes or STREAM_BYTES[device.type]) // 8),
        product_rate(device, torch.int8, size) if look_dtype(torch.float32) == torch.int8 else 0.0,
    )
