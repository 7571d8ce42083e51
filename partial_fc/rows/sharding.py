"""Which rank holds which class, and where a batch's targets lie: integers only.

Shards are contiguous and differ by at most one class: the first ``C % size`` ranks hold one more. A ``class_id`` is
global, a ``column`` counts within a shard.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Columns = slice | Tensor  # of a shard


def class_range(num_classes: int, rank: int, size: int) -> range:
    """The class ids that ``rank`` of ``size`` holds; empty where there are more ranks than classes."""
    if not 0 <= rank < size:
        raise ValueError(f"rank {rank} does not exist among {size} ranks: expected 0 <= rank < size")
    base, extra = divmod(num_classes, size)
    start = rank * base + min(rank, extra)
    return range(start, start + base + (rank < extra))


class Targets(NamedTuple):
    """Rows of the batch, the place of each one's class in some stretch of classes, and which of them lie in it.

    On a CPU only those that do are listed. On a GPU their number is not known without waiting for it, so all rows
    are: those that lie elsewhere have ``is_here`` False and valid places, spread out so that no place is that of all.
    """

    rows: Int[Tensor, " m"]
    places: Int[Tensor, " m"]
    is_here: Bool[Tensor, " m"]

    def marked(self, count: int) -> Bool[Tensor, " count"]:
        """``(count,)``: which places of the stretch are those of targets that lie in it."""
        marked = torch.zeros(count, dtype=torch.bool, device=self.places.device)
        return marked.index_put_((self.places,), self.is_here, accumulate=True) if count else marked

    def within(self, start: int, stop: int) -> Targets:
        """The targets in ``start .. stop``, placed from ``start`` on."""
        is_here = self.is_here & (self.places >= start) & (self.places < stop)
        if _lists_all(is_here):
            return Targets(
                self.rows, torch.where(is_here, self.places - start, self.rows % max(stop - start, 1)), is_here
            )
        kept = torch.nonzero(is_here).squeeze(1)
        return Targets(self.rows[kept], self.places[kept] - start, is_here[kept])

    def among(self, columns: Int[Tensor, " c"]) -> Targets:
        """The targets, placed among some columns of the stretch, in rising order, of which those here are part."""
        places = torch.searchsorted(columns, self.places).clamp(max=max(len(columns) - 1, 0))
        return self._replace(places=places)


def _lists_all(rows: Tensor) -> bool:
    return rows.is_cuda


def owned_targets(labels_N: Int[Tensor, " N"], shard: range) -> Targets:
    """The rows of the batch whose class lies in ``shard``, and the column of each one's class."""
    everywhere = Targets(
        torch.arange(len(labels_N), device=labels_N.device), labels_N, torch.ones_like(labels_N, dtype=torch.bool)
    )
    return everywhere.within(shard.start, shard.stop)
