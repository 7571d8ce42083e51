"""Which rank holds which class: integers only.

Shards are contiguous and differ by at most one class: the first ``C % size`` ranks hold one more. A ``class_id`` is
global, a ``column`` counts within a shard.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def class_range(num_classes: int, rank: int, size: int) -> range:
    """The class ids that ``rank`` of ``size`` holds; empty where there are more ranks than classes."""
    if not 0 <= rank < size:
        raise ValueError(f"rank {rank} does not exist among {size} ranks: expected 0 <= rank < size")
    base, extra = divmod(num_classes, size)
    start = rank * base + min(rank, extra)
    return range(start, start + base + (rank < extra))


def owned_targets(labels_N: Int[Tensor, " N"], shard: range) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """The rows of the batch whose class lies in ``shard``, and the column of each one's class."""
    owned_N = (labels_N >= shard.start) & (labels_N < shard.stop)
    rows = torch.nonzero(owned_N).squeeze(1)
    return rows, labels_N[rows] - shard.start
