"""P2SGrad: the cosine in place of the softmax probability. Zhang et al., CVPR 2019, 1905.02479, eq. 11.

The paper's slope ``c_ij - 1[j=y]`` is the derivative of ``½ Σ_j (c_ij - 1[j=y])²``. With a weight ``λ`` on the other
classes: ``loss = ½ [λ Σ_{j≠y} c² + (1 - c_y)²]``; ``λ = 1`` is the paper.

*Beyond chance*, which is this project's and not the paper's, only those other classes push that are nearer than the
nearest of C - 1 random directions is expected to be: at the slope ``[c_ij - τ]₊`` with ``τ = √(2 ln(C-1) / D)``.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor


def balanced_weight(num_classes: int, embedding_dim: int, kappa: float) -> float:
    """``λ = κ D / C``. Below ``D/C`` the aligned state is the lowest; at λ = 1 it is not once C exceeds about D.

    Aligned embeddings on a tight frame of classes cost ``½ λ (C/D - 1)``; embeddings in a subspace that no class row
    touches cost ``½``, whatever λ.
    """
    return kappa * embedding_dim / num_classes


def p2sgrad_loss(
    cos_target_N: Float[Tensor, " N"], squares_N: Float[Tensor, " N"], inter_class_weight: float | Tensor
) -> Float[Tensor, " N"]:
    """Per row ``½ [λ Σ_{j≠y} c_ij² + (1 - c_iy)²]``, with ``squares_N`` the sum over the other classes."""
    return 0.5 * (inter_class_weight * squares_N + (1.0 - cos_target_N).square())


def chance_cosine(num_classes: int, embedding_dim: int) -> float:
    """``τ = √(2 ln(C-1) / D)``: about the cosine of the nearest of C - 1 random directions, where it is below 1.

    ValueError for fewer than two classes.
    """
    if num_classes < 2:
        raise ValueError(f"got num_classes={num_classes}: expected >= 2")
    return math.sqrt(2.0 * math.log(num_classes - 1) / embedding_dim)


def excesses_(cos: Tensor, threshold: Tensor, gain: Tensor) -> Tensor:
    """``gain · [cos - threshold]₊``, in place: the slopes of the classes but the target, beyond chance."""
    return cos.sub_(threshold).clamp_(min=0.0).mul_(gain)
