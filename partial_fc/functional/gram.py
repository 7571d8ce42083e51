"""Gram matrices of unit rows, for losses that are quadratic in the cosines: no cosine is ever made.

For ``m`` rows ``u_j`` of unit length in ``D`` dimensions and any unit vector ``x``, with ``G = Σ_j u_j u_jᵀ``::

    Σ_j (x·u_j)² = xᵀ G x            Σ_j (x·u_j) u_j = G x

``G`` is kept *centred*, ``G - (m/D) I``: what is taken off only adds a multiple of ``x`` to ``G x``, which the tangent
projection removes, and what is left is small, so low precision keeps more of its digits.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_STRIPS = 4  # of the symmetric matrix: 10 of its 16 tiles are computed


def add_centred_gram(total_DD: Float[Tensor, "D D"], unit_bD: Float[Tensor, "b D"]) -> None:
    """Add ``Σ u uᵀ - (b/D) I`` of a block to ``total_DD``: to its upper part, which :func:`symmetric` completes.

    The product runs in the dtype of ``unit_bD`` with ``-(b/D) I`` inside its sum, so that a bfloat16 result is rounded
    after the large diagonal is gone. A GPU's result is float32 (:func:`sums_in_float32`), and is centred afterwards.
    """
    num_rows, dim = unit_bD.shape
    if sums_in_float32(unit_bD):
        for start, stop in _strips(dim):
            total_DD[start:stop, start:] += torch.mm(
                unit_bD[:, start:stop].T, unit_bD[:, start:], out_dtype=torch.float32
            )
        total_DD.diagonal().sub_(num_rows / dim)
        return
    centre = torch.tensor(num_rows / dim, dtype=unit_bD.dtype).item()  # as the product's dtype has it
    identity_DD = torch.eye(dim, dtype=unit_bD.dtype, device=unit_bD.device)
    for start, stop in _strips(dim):
        upper = slice(start, stop), slice(start, dim)
        tile = torch.addmm(identity_DD[upper], unit_bD[:, start:stop].T, unit_bD[:, start:], beta=-centre)
        total_DD[upper] += tile
    total_DD.diagonal().add_(centre - num_rows / dim)


def sums_in_float32(factor: Tensor) -> bool:
    """Whether a product of bfloat16 factors can have a float32 result: on CUDA alone.

    Without that, cuBLAS may round the partial sums of a long product to bfloat16 before it adds them.
    """
    return factor.is_cuda and factor.dtype == torch.bfloat16


def symmetric(upper_DD: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
    """The whole matrix from its upper part."""
    return upper_DD.triu() + upper_DD.triu(1).T


def centred_gram(unit_mD: Float[Tensor, "m D"]) -> Float[Tensor, "D D"]:
    """``Σ u uᵀ - (m/D) I`` of all rows at once, in their own dtype."""
    dim = unit_mD.shape[1]
    gram_DD = unit_mD.T @ unit_mD
    gram_DD.diagonal().sub_(len(unit_mD) / dim)
    return gram_DD


def _strips(dim: int) -> list[tuple[int, int]]:
    width = -(-dim // _STRIPS)
    return [(start, min(start + width, dim)) for start in range(0, dim, width)]
