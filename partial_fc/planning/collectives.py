"""What the ranks of a run say to each other in a step, and how long that takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from partial_fc.planning.rates import Rates
from partial_fc.planning.tensor_costs import TensorCosts
from partial_fc.world import World

BUCKET_BYTES = 25 << 20  # of DDP's gradients; the first is smaller
_FIRST_BUCKET_BYTES = 1 << 20


@dataclass(frozen=True)
class Collective:
    """``count`` calls of one kind in a step, which move ``total_bytes``: the size of what all ranks have after it.

    Of a reduce-scatter it is what each rank puts in. ``is_hidden``: it runs beside computing that does not need it.
    """

    what: str
    kind: str
    count: int
    total_bytes: int
    is_hidden: bool = False

    def seconds(self, ranks: int, rates: Rates) -> float:
        """By a ring: each rank sends its share of the bytes once, and twice for an all-reduce; 0 for one rank."""
        link_bytes = (
            rates.link_bytes if ranks <= rates.ranks_per_machine else min(rates.link_bytes, rates.network_bytes)
        )
        sent_bytes = self.total_bytes * (ranks - 1) / ranks * (2 if self.kind == "all-reduce" else 1)
        return self.count * rates.latency_seconds * math.ceil(math.log2(ranks)) + sent_bytes / link_bytes


def backbone_collectives(parameters: int) -> Iterator[Collective]:
    """DDP's buckets of float32 gradients, beside the backward pass."""
    gradient_bytes = 4 * parameters
    buckets = 1 + max(0, math.ceil((gradient_bytes - _FIRST_BUCKET_BYTES) / BUCKET_BYTES))
    yield Collective("backbone's gradient", "all-reduce", buckets, gradient_bytes, is_hidden=True)


class PlannedWorld(World):
    """Rank 0 of ``size`` that do not exist: each collective returns a tensor of the right shape, and is noted.

    ``collectives`` are those of what was done in this world, by what they carry. A reduce-scatter is hidden where
    ``costs``, which count the same work, have seen products between its start and the wait for it.
    """

    def __init__(self, size: int, costs: TensorCosts) -> None:
        self.size, self._costs = size, costs
        self.collectives: dict[str, Collective] = {}

    def all_sum(self, tensor: Tensor) -> Tensor:
        """See :meth:`World.all_sum`."""
        self._note("targets and sums" if tensor.dim() else "number of drawn classes", "all-reduce", tensor.nbytes)
        return tensor.clone()

    def gather_rows(self, rows_n: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """See :meth:`World.gather_rows`."""
        assert counts is not None, "a planned rank cannot ask the others"
        padded_bytes = self.size * max(counts) * rows_n[0].nbytes
        self._note("embeddings" if rows_n.is_floating_point() else "labels", "all-gather", padded_bytes)
        return rows_n.new_empty(sum(counts), *rows_n.shape[1:])

    def start_scatter_sum_rows(self, rows_N: Tensor, counts: Sequence[int]) -> Callable[[], Tensor]:
        """See :meth:`World.start_scatter_sum_rows`."""
        operations, summed = self._costs.operations, rows_N.new_empty(max(counts), *rows_N.shape[1:])

        def result() -> Tensor:
            padded_bytes = self.size * summed.nbytes
            is_hidden = self._costs.operations > operations
            self._note("embeddings' gradient", "reduce-scatter", padded_bytes, is_hidden=is_hidden)
            return summed[: counts[self.rank]]

        return result

    def _note(self, what: str, kind: str, total_bytes: int, *, is_hidden: bool = False) -> None:
        noted = self.collectives.get(what, Collective(what, kind, 0, 0))
        self.collectives[what] = Collective(what, kind, noted.count + 1, noted.total_bytes + total_bytes, is_hidden)
