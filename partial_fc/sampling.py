"""Which classes take part in a step, and the rows they start from: counter hashes of (seed, step, class).

Nothing here knows a rank: the union over any number of shards is the same draw, and the same first rows.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor


def drawn_classes(classes: range, rate: float, seed: int, step: int) -> Int[Tensor, " m"]:
    """The class ids of ``classes`` that are drawn: each independently with probability ``rate``, in rising order.

    A class is drawn when its hash falls below ``rate``, so the number drawn varies by about the root of itself.
    """
    counters = np.arange(classes.start, classes.stop, dtype=np.uint64)
    key = _mixed(np.array([seed], dtype=np.uint64)) + np.uint64(step)
    hashes = _mixed(counters ^ _mixed(key))
    return torch.from_numpy(np.flatnonzero(hashes < np.uint64(min(int(rate * 2.0**64), 2**64 - 1))) + classes.start)


def initial_rows(classes: range, embedding_dim: int, seed: int) -> Float[Tensor, "c D"]:
    """Unit rows in random directions, each a function of (seed, class id) alone, to the bit.

    Every component is a sum of four 16-bit uniforms (near enough to normal for an even spread of directions) from the
    class's own part of a Philox stream. Integers until one square root and one division, which IEEE rounds alike
    everywhere, so neither the shard nor the machine's vector width shows in a row.
    """
    blocks_per_row = -(-embedding_dim // 4)  # Philox makes four words a count
    stream = np.random.Philox(key=seed, counter=classes.start * blocks_per_row)
    rows = torch.empty(len(classes), embedding_dim)
    for start in range(0, len(classes), 65536):
        stop = min(start + 65536, len(classes))
        words = stream.random_raw((stop - start) * blocks_per_row * 4).reshape(stop - start, -1)[:, :embedding_dim]
        parts = np.ascontiguousarray(words).view(np.uint16).reshape(stop - start, embedding_dim, 4)
        sums = parts.sum(axis=2, dtype=np.int64) - 2 * 0xFFFF
        norm = np.sqrt(np.square(sums).sum(axis=1, keepdims=True).astype(np.float64))
        rows[start:stop] = torch.from_numpy((sums / np.maximum(norm, 1.0)).astype(np.float32))
    return rows


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014): every input bit moves every output bit."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
