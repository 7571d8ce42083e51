"""Whether an embedding's length says how good its picture is: the error that stays when the shortest are rejected."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SHARES = tuple(percent / 100 for percent in range(0, 100, 5))


def error_against_rejection(
    wrong_P: Bool[Tensor, " P"], quality_P: Float[Tensor, " P"], shares: Sequence[float] = SHARES
) -> list[tuple[float, float]]:
    """(share rejected, share of the rest that is wrong) of P pairs, the pairs of lowest quality rejected first.

    The error-versus-reject curve of Grother and Tabassi (2007), with the threshold that made `wrong_P` held fixed. Of
    pairs of equal quality all are rejected or none, so a point may reject less than its share; it then says how much it
    does, and no share is there twice. ValueError where a quality is not a number, or there is no pair.
    """
    if not len(wrong_P) or bool(quality_P.isnan().any()):
        raise ValueError(
            f"{len(wrong_P)} pairs, {int(quality_P.isnan().sum())} of unknown quality: expected some, of none"
        )
    ascending_P, order_P = quality_P.sort(stable=True)
    wrong_left_P = wrong_P[order_P].long().flip(0).cumsum(0).flip(0)
    points = {}
    for share in shares:
        worst = ascending_P[min(int(share * len(wrong_P) + 1e-9), len(wrong_P) - 1)]
        rejected = int(torch.searchsorted(ascending_P, worst))
        points[rejected / len(wrong_P)] = int(wrong_left_P[rejected]) / (len(wrong_P) - rejected)
    return list(points.items())
