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
_CLASSES_AT_ONCE = 256  # whose products stay in the cache
_EPS = torch.finfo(torch.float32).eps  # of rows and embeddings, or of their wider copies, at least


class Quantised(NamedTuple):
    """Vectors as integers, each with a step of its own: ``vectors ≈ steps · integers``.

    Each is off by its error at most, a length; infinite where a vector is not finite.
    """

    integers: Int8[Tensor, "rows D"]
    steps: Float[Tensor, " rows"]
    errors: Float[Tensor, " rows"]

    def at(self, rows: slice | Tensor) -> Quantised:
        """Some of the vectors: views for a slice, copies for numbers of rows."""
        return Quantised(_in_words(self.integers)[rows].view(torch.int8), self.steps[rows], self.errors[rows])

    def put_(self, rows: slice | Tensor, new: Quantised) -> None:
        """Write ``new`` in the place of some of the vectors."""
        _in_words(self.integers)[rows] = _in_words(new.integers)
        self.steps[rows], self.errors[rows] = new.steps, new.errors


def _in_words(integers: Int8[Tensor, "rows D"]) -> Tensor:
    """The same numbers, eight in a word where a row has whole words: they are picked out and written as fast as one."""
    return integers.view(torch.int64) if integers.shape[1] % 8 == 0 else integers


def quantised(
    vectors: Float[Tensor, "rows D"], *, have_one_step: bool = False, wide: Tensor | None = None
) -> Quantised:
    """Vectors as int8, by steps of the 127th of each one's largest component; or of the largest of all.

    ``wide`` is a buffer of the vectors' shape and dtype.
    """
    largest = torch.maximum(-vectors.amin(dim=1), vectors.amax(dim=1))  # on a CPU aminmax of rows takes 8 times as long
    if have_one_step:
        largest = largest.amax().expand_as(largest)
    is_finite = largest < math.inf
    steps = torch.where(is_finite & (largest > 0), largest, 1.0) / _LARGEST_INT8
    scaled = torch.div(vectors, steps.unsqueeze(1), out=wide).round_()
    integers = scaled.to(torch.int8)
    off = torch.linalg.vector_norm(torch.addcmul(vectors, scaled, steps.unsqueeze(1), value=-1, out=scaled), dim=1)
    # The rounding of that difference and of its length comes on top.
    eps, dim = torch.finfo(vectors.dtype).eps, vectors.shape[1]
    errors = torch.where(is_finite, off * (1 + dim * eps) + 2 * eps, math.inf)
    return Quantised(integers, steps, errors)


def least_int8_products(above: float, batch: Quantised, rows: Quantised) -> Int[Tensor, " b"]:
    """What the product of each of the rows with a vector of the batch reaches at a cosine above ``above``.

    The batch has one step. The last term of the bound is for the rounding of the cosine that the product is to find,
    and for the vectors' length: rows known to be of unit length are so but for 100 roundings.
    """
    step, most = float(batch.steps[0]), float(batch.errors.amax())
    dim, limits = batch.integers.shape[1], torch.iinfo(torch.int32)
    off_b = rows.errors.double() * (1 + most) + (most + 2 * dim * _EPS)
    least_b = (above - off_b).div_(step * rows.steps.double()).floor_()
    return least_b.clamp_(limits.min, limits.max).to(torch.int32)


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
    of_factors = torch.finfo(torch.bfloat16).eps / 2 if is_cut else unit_roundoff if dtype.itemsize == 2 else 0.0
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


def reaching(product_bN: Tensor, least_b: Tensor) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Classes and images of the entries that reach the class's bound, or are NaN, by rising class.

    First which classes have any, then where in those. Bfloat16 numbers above 0 order as their bits do, and a CPU
    compares integers several times as fast.
    """
    if product_bN.dtype == torch.bfloat16 and bool((least_b > 0).all()):
        product_bN, least_b = product_bN.view(torch.int16), least_b.view(torch.int16)
    found = []
    for some in torch.split(torch.nonzero(~(product_bN.amax(dim=1) < least_b)).squeeze(1), _CLASSES_AT_ONCE):
        near, images = torch.nonzero(~(product_bN[some] < least_b[some].unsqueeze(1))).unbind(1)
        found.append((some[near], images))
    classes, images = map(torch.cat, zip(*found, strict=True))
    return classes, images


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
