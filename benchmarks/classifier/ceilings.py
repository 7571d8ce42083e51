"""What a step cannot go below on this machine: the rates it has, and the least work that a loss leaves to do.

Legend: ``N`` rows of the global batch, ``C`` classes, ``D`` dimensions. An operation is an addition or a
multiplication; a product of (N, D) with (D, C) has 2·N·C·D of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from launch.planning.device_rates import MATRIX_SIZE, STREAM_BYTES, product_rate, stream_rate


@dataclass(frozen=True)
class Ceilings:
    """The best that this machine showed: operations of a square product, and bytes of `a += b`, each per second."""

    float32_operations: float
    bfloat16_operations: float
    memory_bytes: float

    def or_better(self, other: Ceilings) -> Ceilings:
        """The better of two measurements of one machine, rate by rate: what it can do, whatever else it did."""
        return Ceilings(
            max(self.float32_operations, other.float32_operations),
            max(self.bfloat16_operations, other.bfloat16_operations),
            max(self.memory_bytes, other.memory_bytes),
        )


@dataclass(frozen=True)
class Work:
    """One step of a classifier, as far as its floors depend on it. `state_bytes` is per element of the weights."""

    is_quadratic: bool  # P2SGrad: its slopes are linear in the cosines
    num_rows: int
    num_classes: int
    embedding_dim: int
    sample_rate: float = 1.0
    product_dtype: str = "float32"
    weight_bytes: int = 4
    state_bytes: int = 4

    @property
    def num_drawn(self) -> float:
        """How many classes a step is expected to touch: those drawn, and the batch's own among the others."""
        missed = (1.0 - self.sample_rate) * (1.0 - 1.0 / self.num_classes) ** self.num_rows
        return self.num_classes * (1.0 - missed)

    @property
    def operations(self) -> float:
        """Cosines, rows' gradients and embeddings' gradients, 6·N·C·D; or, for a quadratic loss, two Gram matrices
        and their product with every row: 4·C·D², of which the symmetry of the first leaves 3·C·D².
        """
        blocks = 6.0 * self.num_rows * self.num_drawn * self.embedding_dim
        gram = 3.0 * self.num_drawn * self.embedding_dim**2
        return min(blocks, gram) if self.is_quadratic else blocks

    @property
    def traffic_bytes(self) -> float:
        """The touched rows and their optimizer state, each read once and written once."""
        return 2.0 * self.num_drawn * self.embedding_dim * (self.weight_bytes + self.state_bytes)

    @property
    def held_bytes(self) -> float:
        """The weights and the optimizer state."""
        return float(self.num_classes * self.embedding_dim * (self.weight_bytes + self.state_bytes))


@dataclass(frozen=True)
class Floors:
    """The least that a step takes. `seconds` is the longer of computing and moving the rows: both at once at best."""

    operations: float
    compute_seconds: float
    traffic_bytes: float
    traffic_seconds: float
    seconds: float
    held_bytes: float


def step_floors(work: Work, ceilings: Ceilings, devices: int = 1) -> Floors:
    """The floors of `work` on `devices` that each have these `ceilings`."""
    operations = ceilings.bfloat16_operations if work.product_dtype == "bfloat16" else ceilings.float32_operations
    compute_seconds = work.operations / (operations * devices)
    traffic_seconds = work.traffic_bytes / (ceilings.memory_bytes * devices)
    seconds = max(compute_seconds, traffic_seconds)
    return Floors(work.operations, compute_seconds, work.traffic_bytes, traffic_seconds, seconds, work.held_bytes)


def measured_ceilings(device: torch.device, *, matrix_size: int = 0, stream_bytes: int = 0) -> Ceilings:
    """What `device` does at its best within about a second, with all the threads that this process has."""
    size = matrix_size or MATRIX_SIZE[device.type]
    return Ceilings(
        product_rate(device, torch.float32, size),
        product_rate(device, torch.bfloat16, size),
        stream_rate(device, (stream_bytes or STREAM_BYTES[device.type]) // 8),
    )
