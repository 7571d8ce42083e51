"""Rows on the unit sphere: a step that stays on it, and the way back to it.

Legend: ``c`` rows of this rank, ``b`` of one block, ``D`` dimensions.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_RETRACTED_AT_ONCE = 4096  # rows


def step_on_sphere_(
    rows_bD: Float[Tensor, "b D"],
    direction_bD: Float[Tensor, "b D"],
    learning_rate: Float[Tensor, ""] | Float[Tensor, "b 1"],
    applies: Bool[Tensor, ""] | Bool[Tensor, "b 1"] | None = None,
) -> Float[Tensor, "b D"]:
    """``(w - η u) / |w - η u|``, in place; where ``applies`` is False, with η = 0, ``w`` as it is.

    A zero row that is not moved stays one.
    """
    rows_bD.addcmul_(direction_bD, learning_rate, value=-1)
    norm_b1 = torch.linalg.vector_norm(rows_bD, dim=1, keepdim=True)
    norm_b1 = norm_b1.clamp_(min=torch.finfo(norm_b1.dtype).tiny)
    return rows_bD.div_(norm_b1 if applies is None else torch.where(applies, norm_b1, 1.0))


def shortened_(rows_bD: Float[Tensor, "b D"], longest: Float[Tensor, ""]) -> Float[Tensor, "b D"]:
    """Rows that are longer than ``longest`` brought to that length, in place; the others stay bitwise equal.

    All do where ``longest`` is NaN.
    """
    norm_b1 = torch.linalg.vector_norm(rows_bD, dim=1, keepdim=True)
    return rows_bD.mul_(torch.where(norm_b1 > longest, longest / norm_b1, 1.0))


@torch.no_grad()
def retract_rows(rows_cD: Float[Tensor, "c D"]) -> None:
    """Bring rows to unit length, in place. Rows of unit length but for a few roundings stay bitwise equal."""
    for some_bD in torch.split(rows_cD, _RETRACTED_AT_ONCE):
        norm_b1 = torch.linalg.vector_norm(some_bD, dim=1, keepdim=True)
        is_unit_b1 = ((norm_b1 - 1.0).abs() < 100 * torch.finfo(norm_b1.dtype).eps) | (norm_b1 == 0)
        some_bD.div_(torch.where(is_unit_b1, 1.0, norm_b1))
