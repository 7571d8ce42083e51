"""SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) on int64 tensors: randomness as a function of what it is for.

A hash of (seed, step, class) draws the same on any number of ranks and devices, and needs no state to be saved.
"""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15


def hashed(values: Int[Tensor, " m"], *words: int) -> Int[Tensor, " m"]:
    """64 even bits for each int64 of ``values``, for each sequence of ``words`` others."""
    for word in words:
        values = _mixed(values ^ signed(scalar_hash(word)))
    return values


def scalar_hash(word: int) -> int:
    """The finaliser on one Python integer, modulo 2^64: every input bit moves every output bit."""
    word = (word + _GOLDEN) % 2**64
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


def high_bits(values: Int[Tensor, " m"], count: int) -> Int[Tensor, " m"]:
    """The uppermost ``count`` < 64 bits as non-negative integers."""
    return _shifted(values, 64 - count)


def signed(word: int) -> int:
    """The int64 of the same 64 bits."""
    return word - 2**64 if word >= 2**63 else word


def _mixed(values: Tensor) -> Tensor:
    values = values + signed(_GOLDEN)
    values = (values ^ _shifted(values, 30)) * signed(0xBF58476D1CE4E5B9)
    values = (values ^ _shifted(values, 27)) * signed(0x94D049BB133111EB)
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, places: int) -> Tensor:
    """A shift to the right that fills with zeros: torch's own repeats the sign."""
    return (values >> places) & ((1 << (64 - places)) - 1)
