"""Unit rows, the adjoint of normalising, and the blocks in which a shard's cosines are made.

Legend: ``N`` rows of the global batch, ``c`` classes of this shard, ``b`` classes of one block, ``D`` dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor


def unit_rows(rows: Float[Tensor, "m D"]) -> tuple[Float[Tensor, "m D"], Float[Tensor, "m 1"]]:
    """The rows at unit length, and their norms (summed in float32 at least).

    A zero row has no direction: it stays zero, so every cosine with it is 0, and its norm comes back as infinity,
    so that :func:`tangent_gradient` gives it the gradient 0 instead of 0/0. A row too long for its norm to be finite
    becomes NaN, not zero: divergence must show.
    """
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    norm = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    norm = norm.masked_fill(norm == torch.inf, torch.nan).masked_fill(norm == 0, torch.inf)
    return (wide / norm).to(rows.dtype), norm


def tangent_gradient(
    grad_unit: Float[Tensor, "m D"], unit: Float[Tensor, "m D"], norm: Float[Tensor, "m 1"]
) -> Float[Tensor, "m D"]:
    """The gradient of rows ``x`` from that of their unit rows ``u = x/|x|``: ``(I - u uᵀ) grad_unit / |x|``.

    Computed in the dtype of ``grad_unit``.
    """
    unit = unit.to(grad_unit.dtype)
    radial = (grad_unit * unit).sum(dim=1, keepdim=True)
    return (grad_unit - radial * unit) / norm


def target_cosines(unit_ND: Float[Tensor, "N D"], unit_mD: Float[Tensor, "m D"], rows: Tensor) -> Float[Tensor, " N"]:
    """``(N,)`` float32: the cosine of batch row ``rows[k]`` with class row ``unit_mD[k]``, and 0 elsewhere.

    Every batch row has one owner, so the sum over ranks is the batch's target cosines.
    """
    wide = torch.promote_types(unit_ND.dtype, torch.float32)
    cos_N = unit_ND.new_zeros(len(unit_ND), dtype=wide)
    cos_N[rows] = (unit_ND[rows].to(wide) * unit_mD.to(wide)).sum(dim=1)
    return cos_N


def cosine_block(unit_ND: Float[Tensor, "N D"], unit_bD: Float[Tensor, "b D"]) -> Float[Tensor, "N b"]:
    """``(N, b)`` cosines, float32 at least: the product runs in the rows' dtype, what follows it does not."""
    cos_Nb = unit_ND @ unit_bD.T
    return cos_Nb.to(torch.promote_types(cos_Nb.dtype, torch.float32))


def blocks(num_columns: int, width: int) -> Iterator[slice]:
    """Slices of at most ``width`` columns that cover ``0 .. num_columns``."""
    return (slice(start, min(start + width, num_columns)) for start in range(0, num_columns, width))
