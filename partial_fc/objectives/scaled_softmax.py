"""What the softmax losses share: sums of exponentials of scaled cosines, and the slopes that follow."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from partial_fc.functional import softmax
from partial_fc.fused import fused_on_gpus
from partial_fc.objectives.objective import Objective
from partial_fc.slopes import Cosines, Slopes

_exponentials_ = fused_on_gpus(softmax.exponentials_)
_negative_slopes_ = fused_on_gpus(softmax.negative_slopes_)


class ScaledSoftmax(Objective):
    """The softmax over scaled cosines that NormFace, CosFace, ArcFace, AdaCos and the combined margin share."""

    def is_left_out(self, cos_Nb: Float[Tensor, "N b"]) -> Tensor | None:
        """Which other classes count with the cosine 0 and have no slope, ``(N, b)`` bool; None for none at all."""
        return None

    def log_negatives(self, cosines: Cosines, scale: Tensor) -> Float[Tensor, " N"]:
        """``ln Σ_{j≠y} exp(s c_ij)`` in float64: one sweep."""
        shift = softmax.exponent_shift(scale, cosines.num_classes)

        def terms(cos_Nb: Tensor) -> Tensor:
            left_out_Nb = self.is_left_out(cos_Nb)
            return _exponentials_(cos_Nb if left_out_Nb is None else cos_Nb.masked_fill_(left_out_Nb, 0), scale, shift)

        return softmax.log_of_sum(cosines.sum_over_negatives(terms), shift)

    def slopes(
        self, scale: Tensor, log_negatives_N: Tensor, margined_N: Tensor, derivative_N: Tensor, **figures: Tensor
    ) -> Slopes:
        """Loss and slopes for the target's ``ψ(c)``, ``(N,)``, and its derivative; ``log_negatives_N`` as above."""
        dtype = margined_N.dtype
        loss_N, excess_N, log_normaliser_N = softmax.softmax_loss(log_negatives_N, scale.double() * margined_N.double())
        # A logarithm near the scale, rounded to float32, would be P_ij's largest error: its remainder goes to the gain.
        rounded_N = log_normaliser_N.to(dtype)
        gain_N = (scale * torch.exp(rounded_N - log_normaliser_N)).to(dtype)

        def negatives(cos_Nb: Tensor) -> Tensor:
            left_out_Nb = self.is_left_out(cos_Nb)
            slopes_Nb = _negative_slopes_(cos_Nb, scale, rounded_N[:, None], gain_N[:, None])
            return slopes_Nb if left_out_Nb is None else slopes_Nb.masked_fill_(left_out_Nb, 0)

        target_slope_N = scale * derivative_N * excess_N.to(dtype)
        return Slopes(loss_N.to(dtype), target_slope_N, negatives, {"scale": scale, **figures})


def checked_scale(scale: float, name: str = "scale") -> float:
    """``scale``; ValueError where float32 cannot hold the exponentials."""
    if not 0.0 < scale <= softmax.LARGEST_SCALE:
        raise ValueError(f"{name}={scale}: expected 0 < {name} <= {softmax.LARGEST_SCALE:g}, the range float32 carries")
    return float(scale)
