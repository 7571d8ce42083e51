"""Margins at the target: ``ψ(c)`` for the target's cosine ``c``, and its derivative ``ψ'(c)``."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def cosface_target(cos_N: Float[Tensor, " N"], margin: float) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """``ψ = c - m``, ``ψ' = 1``. Wang et al., CosFace, 1801.09414, eq. 4."""
    return cos_N - margin, torch.ones_like(cos_N)


def arcface_target(
    cos_N: Float[Tensor, " N"], margin: float, *, straight_through: bool = False
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """``ψ = cos(θ + m)``, ``ψ' = sin(θ + m) / sin θ``. Deng et al., ArcFace, 1801.07698, eq. 3.

    ``straight_through`` gives ``ψ' = 1`` instead: not the derivative, but what the widespread PyTorch port computes,
    which edits its logits under ``no_grad``. ``sin θ`` is kept above the root of float's epsilon: at a cosine of ±1
    the tangent vanishes as fast as the ratio grows, so the gradient there is 0, not 0·inf. Beyond ``θ = π - m`` the
    formula turns the target away, as printed.
    """
    cos_N, sin_N = _cos_and_sin(cos_N)
    margined_N = cos_N * math.cos(margin) - sin_N * math.sin(margin)
    if straight_through:
        return margined_N, torch.ones_like(cos_N)
    sin_margined_N = sin_N * math.cos(margin) + cos_N * math.sin(margin)
    return margined_N, _over_sine(sin_margined_N, sin_N)


def combined_target(
    cos_N: Float[Tensor, " N"], m1: float, m2: float, m3: float
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """``ψ = cos(m1·θ + m2) - m3``, ``ψ' = m1·sin(m1·θ + m2) / sin θ``. Deng et al., ArcFace, 1801.07698, eq. 4.

    ``sin θ`` is kept above the root of float's epsilon, as in :func:`arcface_target`.
    """
    cos_N, sin_N = _cos_and_sin(cos_N)
    angle_N = m1 * torch.atan2(sin_N, cos_N) + m2
    return angle_N.cos() - m3, m1 * _over_sine(angle_N.sin(), sin_N)


def _cos_and_sin(cos_N: Tensor) -> tuple[Tensor, Tensor]:
    cos_N = cos_N.clamp(-1.0, 1.0)
    return cos_N, ((1.0 - cos_N) * (1.0 + cos_N)).sqrt()  # 1 - c² would lose half the digits near 1


def _over_sine(numerator_N: Tensor, sin_N: Tensor) -> Tensor:
    return numerator_N / sin_N.clamp(min=math.sqrt(torch.finfo(sin_N.dtype).eps))
