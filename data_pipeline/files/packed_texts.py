"""Millions of short texts, such as paths, as two arrays: a Python string each would cost ten times their bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class PackedTexts(Sequence[str]):
    """Texts that cost their bytes and 8 more each; read from any thread, pickled and shared by a fork as two arrays.

    They are file names to the operating system: bytes that are no UTF-8 survive.
    """

    def __init__(self, joined: NDArray[np.uint8], edges: NDArray[np.int64]) -> None:
        """Text i is `joined[edges[i] : edges[i + 1]]`; both arrays are kept."""
        self._joined, self._edges = joined, edges

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> PackedTexts:
        """Texts that exist as Python objects."""
        texts = list(texts)
        edges = np.fromiter(map(len, [b"", *texts]), np.int64, len(texts) + 1).cumsum()
        return cls(np.frombuffer(b"".join(texts), np.uint8), edges)

    def __len__(self) -> int:
        return self._edges.size - 1

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        at = place + len(self) if place < 0 else place
        if not 0 <= at < len(self):
            raise IndexError(f"text {place} of {len(self)}")
        return os.fsdecode(self._joined[self._edges[at] : self._edges[at + 1]].tobytes())
