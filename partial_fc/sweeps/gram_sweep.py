"""The Gram form: one step of a loss that is quadratic in the cosines, without making any.

P2SGrad's slopes are linear, ``r_ij = w c_ij`` and ``r_iy`` at the target. With this shard's ``G = Σ_j ŵ_j ŵ_jᵀ`` and
the batch's ``H = Σ_i x̂_i x̂_iᵀ``::

    Σ_j c_ij²      = x̂_iᵀ G x̂_i
    Σ_j r_ij ŵ_j   = w G x̂_i + (r_iy - w c_iy) ŵ_y
    Σ_i r_ij x̂_i   = w H ŵ_j + Σ_{i: y_i = j} (r_ij - w c_ij) x̂_i

That is 3·c·D² operations (G is symmetric) instead of 8·N·c·D, whatever N is. Each rank keeps the G of its own classes:
the sums above are linear in it, so the collectives of the block form already add them up and no D x D matrix travels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from partial_fc.functional.gram import add_centred_gram, centred_gram, symmetric
from partial_fc.slopes import Slopes
from partial_fc.sweeps.block import RowGradient
from partial_fc.sweeps.sweep import Sweep

ROWS_ELEMENTS = 1 << 20  # of a block's rows on a CPU: 4 MiB


@dataclass
class GramSweep(Sweep):
    """A :class:`Sweep` for linear slopes. Its twin is the block form: equal but for rounding.

    ``gram_DD`` is the centred Gram matrix of ``rows_cD`` where it is known, else None: it is then made in a sweep of
    its own. With ``carries_gram`` the rows are summed up as the taker of :meth:`row_gradients` left them, while they
    are in the cache, into ``next_gram_DD``: a step then reads and writes the rows once. The two ways are bitwise equal,
    since blocks, order and products are the same: a step after a restore, which starts from None, is the step it would
    have been.
    """

    gram_DD: Tensor | None = None
    carries_gram: bool = False

    def own_squares(self) -> Float[Tensor, " N"]:
        """See :meth:`Sweep.own_squares`. ``G x̂`` is made on the way and kept for the gradient."""
        if self.gram_DD is None:
            self.gram_DD = self._gram()
        self.pushed_ND = self.unit_ND @ self.gram_DD
        self.own_target_N = self.own_target_cosines()
        centre = self.num_columns / self.unit_ND.shape[1]
        squares_N: Tensor = torch.linalg.vecdot(self.unit_ND, self.pushed_ND + centre * self.unit_ND)
        return squares_N - self.own_target_N.square()

    def row_gradients(self, slopes: Slopes, gain: Tensor, applies: Tensor | None = None) -> Iterator[RowGradient]:
        """See :meth:`Sweep.row_gradients`; the embeddings' gradient is sent before the rows' sweep, which hides it."""
        weight = slopes.linear_weight
        assert weight is not None, "the classifier takes the Gram form for quadratic objectives only"
        rows, places, is_here = self.targets
        pull_N = torch.where(is_here, slopes.target_N[rows] - weight * self.own_target_N[rows], 0.0).unsqueeze(1)
        grad_ND = weight * self.pushed_ND
        if self.num_columns:
            grad_ND.index_add_(0, rows, pull_N * self._target_units(places))
        self._send(grad_ND.mul_(gain))

        batch_DD = (gain * weight * centred_gram(self.unit_ND)).to(self.product_dtype)
        pulled_mD = torch.zeros_like(self.unit_ND).index_copy_(0, rows, gain * pull_N * self.unit_ND[rows])
        upper_DD = torch.zeros_like(batch_DD, dtype=self.unit_ND.dtype)
        for block in self._blocks():
            grad_bD = self._product("push", block.factor_bD, batch_DD)
            here = block.targets
            _add_at(grad_bD, here.places, pulled_mD[here.rows] * here.is_here.unsqueeze(1))
            yield block.row_gradient(grad_bD, applies, self.scratch)
            if self.carries_gram:
                add_centred_gram(upper_DD, self.in_product_dtype("rows", self._units(block.columns)[0]))
        if self.carries_gram:
            self.next_gram_DD = symmetric(upper_DD)

    def _gram(self) -> Float[Tensor, "D D"]:
        upper_DD = self.unit_ND.new_zeros(self.unit_ND.shape[1], self.unit_ND.shape[1])
        for block in self._blocks():
            add_centred_gram(upper_DD, block.factor_bD)
        return symmetric(upper_DD)

    def block_width(self) -> int:
        """See :meth:`Sweep.block_width`: on a CPU a block's rows stay in the cache, as no cosines are made."""
        if self.block_classes is not None or self.unit_ND.is_cuda:
            return super().block_width()
        return max(ROWS_ELEMENTS // self.unit_ND.shape[1], 64)


def _add_at(grad_bD: Tensor, places_m: Tensor, added_mD: Tensor) -> None:
    """Add rows at places, of which one may occur several times, in the same order each time.

    On a GPU ``index_add_`` adds in whatever order its threads come; ``index_put_`` sorts the places first.
    """
    if grad_bD.is_cuda:
        grad_bD.index_put_((places_m,), added_mD, accumulate=True)
    else:
        grad_bD.index_add_(0, places_m, added_mD)
