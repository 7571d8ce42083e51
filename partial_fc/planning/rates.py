"""What a machine does in a second: its products, its memory, its links."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """What a machine does, each per second: operations by kind of product, bytes of its memory, bytes of its links.

    ``link_bytes``: between the ranks of one machine; ``network_bytes``: between machines, of one machine's adapters
    together. Both as a ring has them, one way. A collective costs ``latency_seconds`` for each doubling of the ranks.
    ``copy_bytes``: from where the weights lie into the host's memory; ``disk_bytes``: onto the disk, all ranks of a
    machine together, None where nobody has said.
    """

    float32_operations: float
    tf32_operations: float
    bfloat16_operations: float
    memory_bytes: float
    link_bytes: float
    network_bytes: float
    latency_seconds: float
    ranks_per_machine: int
    copy_bytes: float
    disk_bytes: float | None = None

    def operations(self, products: str) -> float:
        """The rate of ``products``: float32, tf32 or bfloat16."""
        return float(getattr(self, f"{products}_operations"))


# ASSUMED, not measured: about two thirds of the data sheet's dense products of an H100 SXM (67, 494, 989 Tflop/s), five
# sixths of its memory's 3.35 TB/s, four fifths of NVLink's 450 GB/s, of PCI Express' 64 GB/s and of eight 400 Gb/s
# adapters a machine. Disks are too different to assume one.
H100 = Rates(
    float32_operations=45e12,
    tf32_operations=330e12,
    bfloat16_operations=650e12,
    memory_bytes=2.8e12,
    link_bytes=360e9,
    network_bytes=320e9,
    latency_seconds=10e-6,
    ranks_per_machine=8,
    copy_bytes=51e9,
)
