"""What a process's collectives carry, and how long it stands still for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from partial_fc.reports.instants import Span, instant


class Traffic:
    """The collectives of one process since :meth:`taken` was last called; ``total_bytes`` since the start.

    A collective is counted with the size of its larger side on this rank: what an all-gather gives, what a
    reduce-scatter is given. A wait holds the time that this rank is early, too; what is hidden behind computation is
    no wait.
    """

    def __init__(self) -> None:
        self.total_bytes = 0
        self._waits: list[Span] = []

    @contextmanager
    def waiting(self, tensor: Tensor) -> Iterator[None]:
        """A wait for the collective of ``tensor``, its larger side."""
        self.total_bytes += tensor.nbytes
        begin = instant(tensor.device)
        yield
        self._waits.append((begin, instant(tensor.device)))

    def taken(self) -> list[Span]:
        """The waits, which are forgotten."""
        waits, self._waits = self._waits, []
        return waits
