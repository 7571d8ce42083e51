"""A look at all cosines in low precision, and how far it can be off: no cosine above a bound is missed.

Unit vectors x and w are rounded to factors x' = x + Δx and w' = w + Δw. Their exact product is off by

    |x'·w' - x·w| <= |Δx| + |Δw| + |Δx| |Δw|

With a sum in float32 and a result in bfloat16 the rounding of both comes on top. The sum of int8 products is exact.

Legend: ``N`` embeddings; ``b`` classes; ``D`` dimensions; ``m`` pairs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

_LARGEST_INT8 = 127


class Quantised(NamedTuple):
    """``vectors ≈ step · integers``, off by ``error`` at most, a length; infinite where a vector is not finite."""

    integers: Int8[Tensor, "rows D"]
    step: float
    error: float


def quantised(
    vectors: Float[Tensor, "rows D"], out: Int8[Tensor, "rows D"] | None = None, wide: Tensor | None = None
) -> Quantised:
    """Vectors as int8 of one common step, the largest component's 127th. ``out`` and ``wide`` are buffers for it."""
    low, high = torch.aminmax(vectors)
    largest = max(-float(low), float(high))
    if not largest < math.inf:  # or NaN
        return Quantised(torch.zeros_like(vectors, dtype=torch.int8), 1.0, math.inf)
    largest = largest or 1.0
    scaled = torch.mul(vectors, _LARGEST_INT8 / largest, out=wide).round_()
    integers = scaled.to(torch.int8) if out is None else out.copy_(scaled)
    step = largest / _LARGEST_INT8
    # A component is off by half a step, and by the rounding of the product before it is rounded to an integer.
    slack = 2 * _LARGEST_INT8 * torch.finfo(vectors.dtype).eps
    return Quantised(integers, step, (0.5 + slack) * step * math.sqrt(vectors.shape[1]))


def least_int8_product(above: float, left: Quantised, right: Quantised, eps: float) -> float:
    """A whole number that the product of ``left`` and ``right`` reaches at cosines above ``above``; or -∞.

    ``eps`` is that of the vectors' dtype, by which their length may be off 1, as their product by its sum.
    """
    off = left.error + right.error + left.error * right.error
    dim = left.integers.shape[1]
    if off == math.inf:
        return -math.inf
    return float(math.floor((above - off - 2 * dim * eps) / (left.step * right.step)))


def least_product(above: float, dim: int, dtype: torch.dtype) -> float:
    """A number of ``dtype`` that the product of unit vectors in ``dtype`` reaches if their cosine is above ``above``.

    With the factors rounded to ``dtype``, of unit roundoff ``u``, ``|Δx|, |Δw| <= u``; the sum in float32 (float64 of
    float64) is off by ``γ = D ε / (1 - D ε)`` times the factors' lengths; and its rounding to ``dtype`` by the share
    ``u`` of itself. A doubled γ allows for vectors whose length is off by their own rounding, and for float64 ones that
    are rounded to float32. ``torch.set_float32_matmul_precision`` may let products of float32 round their factors: to
    bfloat16 at worst.
    """
    unit_roundoff = torch.finfo(dtype).eps / 2
    sums = torch.finfo(torch.promote_types(dtype, torch.float32)).eps / 2
    accumulated = 2 * dim * sums / (1 - dim * sums)
    is_cut = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    of_factors = torch.finfo(torch.bfloat16).eps / 2 if is_cut or dtype == torch.bfloat16 else 0.0
    factors = 2 * of_factors + of_factors**2
    least = above - factors - accumulated * (1 + unit_roundoff) ** 2
    least -= abs(least) * unit_roundoff
    rounded = torch.tensor(least, dtype=torch.float64).to(dtype)
    if rounded.item() > least:
        rounded = torch.nextafter(rounded, torch.tensor(-math.inf, dtype=dtype))
    return rounded.item()


def are_finite(vectors: Float[Tensor, "rows D"]) -> bool:
    """Whether all components are."""
    low, high = torch.aminmax(vectors)
    return -math.inf < float(low) and float(high) < math.inf


def reaching(product_Nb: Tensor, least: float) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Rows and columns of the entries of at least ``least``, or NaN: first which rows have any, then where in those.

    Bfloat16 numbers above 0 order as their bits do, and a CPU compares integers several times as fast.
    """
    if not product_Nb.is_floating_point():
        least = max(least, torch.iinfo(product_Nb.dtype).min)
    ordered, bound = product_Nb, torch.tensor(least, dtype=product_Nb.dtype)
    if product_Nb.dtype == torch.bfloat16 and least > 0:
        ordered, bound = product_Nb.view(torch.int16), bound.view(torch.int16)
    rows = torch.nonzero(~(ordered.amax(dim=1) < bound)).squeeze(1)
    near, columns = torch.nonzero(~(ordered[rows] < bound)).unbind(1)
    return rows[near], columns


def sparse_product(
    rows_m: Int[Tensor, " m"], columns_m: Int[Tensor, " m"], values_m: Float[Tensor, " m"], right: Tensor, height: int
) -> Tensor:
    """``S @ right``, ``(height, D)``, of the matrix S that is 0 but for ``values_m`` at ``(rows_m, columns_m)``."""
    order = torch.argsort(rows_m, stable=True)
    ends = torch.bincount(rows_m, minlength=height).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends])
    return torch.nn.functional.embedding_bag(
        *(columns_m[order], right, starts),
        mode="sum",
        per_sample_weights=values_m[order],
        include_last_offset=True,
    )
