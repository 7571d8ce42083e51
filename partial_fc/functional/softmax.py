"""The softmax of scaled cosines from sums over blocks and ranks: one sum per batch row, no maximum.

With ``z_j = s c_j`` for the other classes and ``z_y = s ψ(c_y)`` at the target (``ψ`` holds a margin, if any)::

    loss = ln(1 + Σ_{j≠y} exp(z_j) / exp(z_y))        P_j = exp(z_j) / Σ_k exp(z_k)

Cosines lie in [-1, 1], so one shift known beforehand keeps every exponential in float32's range: scales up to 80
with up to 10^8 classes neither overflow nor underflow (but for cosines below -0.95 at both limits at once).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

LARGEST_SCALE = 80.0
_LARGEST_EXPONENT = 87.0  # exp(88.7) is float32's last


def exponent_shift(scale: Tensor, num_classes: int) -> Tensor:
    """The least ``a >= 0`` for which ``num_classes`` terms ``exp(scale - a)`` sum to a finite float32."""
    return (scale + math.log(num_classes) - _LARGEST_EXPONENT).clamp(min=0.0)


def exponentials_(cos_Nb: Float[Tensor, "N b"], scale: Tensor, shift: Tensor) -> Float[Tensor, "N b"]:
    """``exp(scale · cos - shift)``, in place."""
    return cos_Nb.mul_(scale).sub_(shift).exp_()


def negative_slopes_(
    cos_Nb: Float[Tensor, "N b"], scale: Tensor, log_normaliser_N1: Tensor, gain_N1: Tensor
) -> Float[Tensor, "N b"]:
    """``gain · exp(scale · cos - ln Σ_k exp(z_k))``, in place: the slope ``s P_ij`` of the classes but the target."""
    return cos_Nb.mul_(scale).sub_(log_normaliser_N1).exp_().mul_(gain_N1)


def filtered_exponentials_(
    cos_Nb: Float[Tensor, "N b"], threshold: Tensor, scale: Tensor, shift: Tensor
) -> Float[Tensor, "N b"]:
    """:func:`exponentials_`, in place, of cosines that are 0 where they were above ``threshold``."""
    return cos_Nb.masked_fill_(cos_Nb > threshold, 0).mul_(scale).sub_(shift).exp_()


def filtered_slopes_(
    cos_Nb: Float[Tensor, "N b"], threshold: Tensor, scale: Tensor, log_normaliser_N1: Tensor, gain_N1: Tensor
) -> Float[Tensor, "N b"]:
    """:func:`negative_slopes_`, in place, but 0 for cosines above ``threshold``."""
    is_above_Nb = cos_Nb > threshold
    return cos_Nb.mul_(scale).sub_(log_normaliser_N1).exp_().mul_(gain_N1).masked_fill_(is_above_Nb, 0)


def log_of_sum(shifted_sum_N: Float[Tensor, " N"], shift: Tensor) -> Float[Tensor, " N"]:
    """``ln Σ exp(z)`` in float64 from ``Σ exp(z - shift)``; -inf where there was no term."""
    return shifted_sum_N.double().log() + shift


def softmax_loss(
    log_negatives_N: Float[Tensor, " N"], target_logit_N: Float[Tensor, " N"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Per row: the loss, ``P_y - 1``, and ``ln Σ_k exp(z_k)`` over all classes.

    ``P_y - 1`` comes from the excess of the negatives, not by subtracting from 1, so it keeps its digits at the end
    of training, when ``P_y`` is 1 to float32's last place.
    """
    excess_N = log_negatives_N - target_logit_N
    loss_N = -torch.nn.functional.logsigmoid(-excess_N)
    return loss_N, -torch.sigmoid(excess_N), torch.logaddexp(log_negatives_N, target_logit_N)
