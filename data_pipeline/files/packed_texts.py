"""Millions of short texts, such as paths, as three arrays: a Python string each would cost ten times their bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

from data_pipeline.files.text_spans import Spans, Text


class PackedTexts(Sequence[str]):
    """Texts that cost their bytes and 12 more each; read from any thread, pickled and shared by a fork as three arrays.

    They are file names to the operating system: bytes that are no UTF-8 survive.
    """

    def __init__(self, text: Text, spans: Spans) -> None:
        """Takes pieces of one text, which is kept."""
        self._text, self._starts, self._sizes = text, spans.starts, spans.sizes.astype(np.uint32)

    @classmethod
    def of(cls, blocks: Iterable[Sequence[bytes]]) -> PackedTexts:
        """Texts that come block by block, so that only one block of Python objects need exist at a time."""
        joined, sizes = bytearray(), [np.zeros(1, np.int64)]
        for block in blocks:
            joined += b"".join(block)
            sizes.append(np.fromiter(map(len, block), np.int64, len(block)))
        edges = np.concatenate(sizes).cumsum()
        return cls(np.frombuffer(bytes(joined), np.uint8), Spans(edges[:-1], edges[1:]))

    def __len__(self) -> int:
        return self._starts.size

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
        start = int(self._starts[at])
        return os.fsdecode(self._text[start : start + int(self._sizes[at])].tobytes())
