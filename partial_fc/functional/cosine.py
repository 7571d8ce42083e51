"""Unit rows, the adjoint of normalising, and the blocks in which a shard's cosines are made.

Legend: ``m`` rows of any kind, ``D`` dimensions.
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
    grad_unit: Float[Tensor, "m D"], unit: Float[Tensor, "m D"], norm: Float[Tensor, "m 1"] | None = None
) -> Float[Tensor, "m D"]:
    """The gradient of rows ``x`` from that of their unit rows ``u = x/|x|``: ``(I - u uᵀ) grad_unit / |x|``.

    Computed in the dtype of ``grad_unit``; ``norm`` None stands for unit rows.
    """
    unit = unit.to(grad_unit.dtype)
    radial = torch.linalg.vecdot(grad_unit, unit).unsqueeze(1)
    tangent = torch.addcmul(grad_unit, radial, unit, value=-1)
    return tangent if norm is None else tangent.div_(norm)


def blocks(num_columns: int, width: int) -> Iterator[slice]:
    """Slices of at most ``width`` columns that cover ``0 .. num_columns``."""
    return (slice(start, min(start + width, num_columns)) for start in range(0, num_columns, width))
