"""What a save costs: bytes in memory and on the disk, how long training waits, how long the writing takes."""

from __future__ import annotations

from dataclasses import dataclass

from partial_fc.planning.backbone_cost import BackboneCost
from partial_fc.planning.head_cost import HeadCost
from partial_fc.planning.rates import Rates

IDENTITY_BYTES = 8  # of each class the key of its identity, by which the row is found again


@dataclass(frozen=True)
class SaveCost:
    """Bytes of a save: ``rank`` writes and copies of rank 0, which has most; ``checkpoint`` those of all ranks.

    Generators' states, a few KiB a rank, and the files' own headers are not counted.
    """

    rank_bytes: int
    checkpoint_bytes: int
    machine_bytes: int

    def pause_seconds(self, rates: Rates) -> float:
        """One copy of what rank 0 writes."""
        return self.rank_bytes / rates.copy_bytes

    def writing_seconds(self, rates: Rates) -> float | None:
        """What the machine of rank 0 writes, at its disk's rate; None where that is not known."""
        return None if rates.disk_bytes is None else self.machine_bytes / rates.disk_bytes


def save_cost(
    head: HeadCost, num_classes: int, backbone: BackboneCost, backbone_moments: int, ranks: int, rates: Rates
) -> SaveCost:
    """The cost of a save of ``ranks``: class rows and their state, the backbone's state on rank 0, buffers on each."""
    here = min(ranks, rates.ranks_per_machine)
    fullest, of_class = -(-num_classes // ranks), head.class_bytes() + IDENTITY_BYTES
    shared = backbone.held_bytes + 4 * backbone_moments * backbone.parameters
    return SaveCost(
        rank_bytes=fullest * of_class + backbone.buffer_bytes + shared,
        checkpoint_bytes=num_classes * of_class + ranks * backbone.buffer_bytes + shared,
        machine_bytes=min(here * fullest, num_classes) * of_class + here * backbone.buffer_bytes + shared,
    )
