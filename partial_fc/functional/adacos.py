"""The scale of AdaCos. Zhang et al., AdaCos, CVPR 2019, 1905.00292."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def fixed_scale(num_classes: int) -> float:
    """``√2 ln(C - 1)``, eq. 12: the scale at which the target's probability turns steepest at θ = π/4.

    C = 2 gives 0, a loss without a gradient, and is refused.
    """
    if num_classes < 3:
        raise ValueError(f"AdaCos' scale √2·ln(C-1) is 0 for C = 2: got num_classes={num_classes}, expected at least 3")
    return math.sqrt(2.0) * math.log(num_classes - 1)


def median_angle(cos_N: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """The median of ``arccos c`` in radians; of an even number of rows the lower of the middle two."""
    return cos_N.clamp(-1.0, 1.0).acos().median()


def dynamic_scale(
    log_negatives_N: Float[Tensor, " N"],
    median_angle_radians: Tensor,
    num_classes: int,
    max_scale: float,
    average: str = "mean",
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The next scale and whether a limit binds (0 or 1): ``ln B_avg / cos(min(π/4, θ_med))``, eq. 14.

    ``log_negatives_N`` is ``ln Σ_{j≠y} exp(s c_ij)`` at the scale ``s`` before; ``B_avg`` is the mean of its
    exponential over the global batch, taken in logs; with ``average`` "median", which is not the paper's, ``ln B_avg``
    is the median of ``log_negatives_N``, which a few crowded rows do not move.

    ``max_scale`` ends the recurrence's divergence when negatives crowd (a share of wrong labels, a cone of centres,
    D < 4 ln(C - 1)). From below the scale is held at 1 or, if less, the fixed scale: negatives on the far side can
    bring ln B_avg below 0, which would turn the loss around.
    """
    log_mean = torch.logsumexp(log_negatives_N, dim=0) - math.log(len(log_negatives_N))
    log_average = log_negatives_N.median() if average == "median" else log_mean
    free = log_average / torch.cos(median_angle_radians.clamp(max=math.pi / 4))
    scale = free.clamp(min(1.0, fixed_scale(num_classes)), max_scale)
    return scale, (scale != free).to(free.dtype)
