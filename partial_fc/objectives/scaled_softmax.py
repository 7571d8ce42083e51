"""What the softmax losses share: sums of exponentials of scaled cosines, and the slopes that follow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from partial_fc.functional import softmax
from partial_fc.objectives.objective import Objective
from partial_fc.rules import Rule
from partial_fc.slopes import Cosines, Slopes


class ScaledSoftmax(Objective):
    """The softmax over scaled cosines that NormFace, CosFace, ArcFace, AdaCos and the combined margin share.

    ``filter_above``: other classes whose cosine is above it count with the cosine 0 and have no slope; None for none.
    """

    filter_above: float | None = None

    def log_negatives(self, cosines: Cosines, scale: Tensor) -> Float[Tensor, " N"]:
        """``ln Σ_{j≠y} exp(s c_ij)`` in float64: one sweep."""
        shift = softmax.exponent_shift(scale, cosines.num_classes)

        terms = softmax.exponentials_, softmax.filtered_exponentials_
        return softmax.log_of_sum(cosines.sum_over_negatives(self._rule(*terms, scale, shift)), shift)

    def slopes(
        self, scale: Tensor, log_negatives_N: Tensor, margined_N: Tensor, derivative_N: Tensor, **figures: Tensor
    ) -> Slopes:
        """Loss and slopes for the target's ``ψ(c)``, ``(N,)``, and its derivative; ``log_negatives_N`` as above."""
        dtype = margined_N.dtype
        loss_N, excess_N, log_normaliser_N = softmax.softmax_loss(log_negatives_N, scale.double() * margined_N.double())
        # A logarithm near the scale, rounded to float32, would be P_ij's largest error: its remainder goes to the gain.
        rounded_N = log_normaliser_N.to(dtype)
        gain_N = (scale * torch.exp(rounded_N - log_normaliser_N)).to(dtype)

        rules = softmax.negative_slopes_, softmax.filtered_slopes_
        negatives = self._rule(*rules, scale, rounded_N[:, None], gain_N[:, None])
        target_slope_N = scale * derivative_N * excess_N.to(dtype)
        return Slopes(loss_N.to(dtype), target_slope_N, negatives, scale, {"scale": scale, **figures})

    def _rule(self, plain: Callable[..., Tensor], filtered: Callable[..., Tensor], *arguments: Tensor) -> Rule:
        if self.filter_above is None:
            return Rule(plain, arguments)
        return Rule(filtered, (arguments[0].new_full((), self.filter_above), *arguments))


def checked_scale(scale: float, name: str = "scale") -> float:
    """``scale``; ValueError where float32 cannot hold the exponentials."""
    if not 0.0 < scale <= softmax.LARGEST_SCALE:
        raise ValueError(f"{name}={scale}: expected 0 < {name} <= {softmax.LARGEST_SCALE:g}, the range float32 carries")
    return float(scale)
