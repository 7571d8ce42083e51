"""P2SGrad: the cosine in place of the softmax probability. Zhang et al., CVPR 2019, 1905.02479, eq. 11.

The paper's slope ``c_ij - 1[j=y]`` is the derivative of ``½ Σ_j (c_ij - 1[j=y])²``. With a weight ``λ`` on the other
classes: ``loss = ½ [λ Σ_{j≠y} c² + (1 - c_y)²]``; ``λ = 1`` is the paper.
"""

from __future__ import annotations

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
