"""Stochastic rounding to bfloat16 by a counter hash: no generator, no state, the same on any number of ranks.

A weight of 1 in bfloat16 does not change when 0.001 is added: rounded to the nearest, small steps are lost for ever.
Rounded up with the probability of the remainder they arrive on average (Gupta et al., 1502.02551).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from partial_fc.rows.hashing import hashed, high_bits

_MULTIPLIERS = 0x7FEB352D, 0x846CA68B - (1 << 32), 0x9E3779B9 - (1 << 32)  # of odd 32-bit constants that mix well


def rounded_to_bfloat16(values_bD: Float[Tensor, "b D"], keys_b: Int[Tensor, " b"]) -> Float[Tensor, "b D"]:
    """``values`` (float32) rounded to one of the two bfloat16 neighbours, with the chances that keep the mean.

    ``keys`` (int32) name the rows: the same key and column draw the same chance. Infinity and NaN stay themselves.
    """
    columns_D = torch.arange(values_bD.shape[1], dtype=torch.int32, device=values_bD.device)
    bits_bD = keys_b.unsqueeze(1) + columns_D * _MULTIPLIERS[2]
    bits_bD.bitwise_xor_((bits_bD >> 16).bitwise_and_(0xFFFF)).mul_(_MULTIPLIERS[0])
    bits_bD.bitwise_xor_((bits_bD >> 15).bitwise_and_(0x1FFFF)).mul_(_MULTIPLIERS[1])
    chances_bD = (bits_bD >> 16).bitwise_and_(0xFFFF)  # as wide as what bfloat16 cuts off
    raised_bD = chances_bD.add_(values_bD.float().view(torch.int32)).bitwise_and_(-0x10000)
    rounded_bD = raised_bD.view(torch.float32)
    return torch.where(values_bD.isfinite(), rounded_bD, values_bD).to(torch.bfloat16)


def row_keys(classes_b: Int[Tensor, " b"], seed: int, step: int, stream: int) -> Int[Tensor, " b"]:
    """int32 keys of rows, a function of (seed, step, class id, stream)."""
    return high_bits(hashed(classes_b, seed, step, stream), 32).sub_(1 << 31).to(torch.int32)
