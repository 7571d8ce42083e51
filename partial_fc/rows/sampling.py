"""Which classes take part in a step, and the rows they start from: counter hashes of (seed, step, class).

Nothing here knows a rank: the union over any number of shards is the same draw, and the same first rows.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from partial_fc.rows.hashing import hashed, high_bits
from partial_fc.rows.sharding import Targets

HASHED_AT_ONCE = 1 << 20  # 8 MiB a tensor
_ROWS_AT_ONCE = 64  # what stays in cache
_LOG_OF_TOO_MANY = math.log(1e-12)  # of the chance that a rank draws more than `most_columns` in a step


def are_drawn(
    classes: range, rate: float, seed: int, step: int, device: torch.device | None = None
) -> Bool[Tensor, " c"]:
    """Which of ``classes`` are drawn: each independently with probability ``rate``, when its hash falls below it.

    The number drawn varies by about the root of itself.
    """
    threshold = min(int(rate * 2.0**63), 2**63 - 1)
    mask_c = torch.empty(len(classes), dtype=torch.bool, device=device)
    for start in range(0, len(classes), HASHED_AT_ONCE):
        some = classes[start : start + HASHED_AT_ONCE]
        hashes = hashed(torch.arange(some.start, some.stop, device=device), seed, step)
        mask_c[start : start + len(some)] = high_bits(hashes, 63) < threshold
    return mask_c


def drawn_columns(targets: Targets, shard: range, rate: float, seed: int, step: int) -> Int[Tensor, " m"]:
    """The columns of ``shard`` that take part in a step, in rising order: the batch's own, and the drawn.

    A batch with more classes than would be drawn keeps them all; a rank without any, and a rate that draws none, are
    nothing special. On a GPU this waits for the device: how many are drawn sizes all that follows.
    """
    return torch.nonzero(_take_part(targets, shard, rate, seed, step)).squeeze(1)


def padded_columns(
    targets: Targets, shard: range, rate: float, seed: int, step: int, batch: int
) -> tuple[Int[Tensor, " m"], Bool[Tensor, " m"]]:
    """:func:`drawn_columns` among others, in rising order, and which they are: nothing waits for a device.

    Their number depends on the sizes alone (:func:`most_columns`). What fills up are columns that take no part: each
    column comes once, so that whatever is written back to it unchanged meets no other writer.
    """
    mask_c = _take_part(targets, shard, rate, seed, step)
    size = most_columns(len(shard), rate, batch)
    filling_c = ~mask_c
    filling_c &= filling_c.cumsum(0) <= size - mask_c.sum()
    columns_m = torch.nonzero_static(mask_c | filling_c, size=size).squeeze(1)
    return columns_m, mask_c[columns_m]


def most_columns(num_columns: int, rate: float, batch: int) -> int:
    """How many of a shard's columns are enough for a step: for the ``batch``'s own, and for those drawn.

    For the latter by Bernstein's inequality, which less than one step of a rank in 10^12 exceeds: about 7 standard
    deviations above the mean.
    """
    drawn, bound = num_columns * rate, -_LOG_OF_TOO_MANY
    more = bound / 3 + math.sqrt((bound / 3) ** 2 + 2 * bound * drawn * (1 - rate))
    return min(num_columns, math.ceil(drawn + more) + batch)


def _take_part(targets: Targets, shard: range, rate: float, seed: int, step: int) -> Bool[Tensor, " c"]:
    return are_drawn(shard, rate, seed, step, targets.places.device) | targets.marked(len(shard))


def initial_rows(
    classes: range, embedding_dim: int, seed: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "c D"]:
    """Unit rows in random directions, each a function of (seed, class id) alone, bitwise equal on every machine.

    Every component is a sum of four 16-bit uniforms (near enough to normal for an even spread of directions) from the
    class's own part of a Philox stream. Integers until one square root and one division, which IEEE rounds alike
    everywhere, so neither the shard nor the machine's vector width shows in a row.
    """
    blocks_per_row = -(-embedding_dim // 4)  # Philox makes four words a count
    stream = np.random.Philox(key=seed, counter=classes.start * blocks_per_row)
    rows = torch.empty(len(classes), embedding_dim, dtype=dtype)
    for start in range(0, len(classes), _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, len(classes))
        words = stream.random_raw((stop - start) * blocks_per_row * 4).reshape(stop - start, -1)[:, :embedding_dim]
        parts = np.ascontiguousarray(words).view(np.uint16).reshape(stop - start, embedding_dim, 4)
        sums = parts[..., 0].astype(np.int32)
        for part in (1, 2, 3):
            sums += parts[..., part]
        sums -= 2 * 0xFFFF
        norm = np.sqrt(np.square(sums.astype(np.int64)).sum(axis=1, keepdims=True).astype(np.float64))
        rows[start:stop] = torch.from_numpy((sums / np.maximum(norm, 1.0)).astype(np.float32))
    return rows
