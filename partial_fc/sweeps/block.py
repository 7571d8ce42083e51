"""A block of a shard's classes: rows and targets, sums over the classes, and the gradient of the rows.

Legend: ``N`` rows of the global batch; ``b`` classes of the block; ``D`` dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from partial_fc.functional import cosine
from partial_fc.fused import fused_on_gpus
from partial_fc.rows.sharding import Columns, Targets
from partial_fc.scratch import Scratch

_tangent_gradient = fused_on_gpus(cosine.tangent_gradient)


@fused_on_gpus
def _tangent_gradient_or_zero(grad_bD: Tensor, unit_bD: Tensor, norm_b1: Tensor | None, applies: Tensor) -> Tensor:
    return torch.where(applies, cosine.tangent_gradient(grad_bD, unit_bD, norm_b1), 0.0)


class RowGradient(NamedTuple):
    """The gradient of a block's rows, ``(b, D)``, of the SUM over the global batch.

    ``applies``, ``()`` or ``(b, 1)`` bool, says where it does, as far as the device alone knows: it is 0 elsewhere.
    """

    columns: Columns
    grad_bD: Tensor
    applies: Tensor | None


class Block(NamedTuple):
    """Some classes of the shard: where they lie, their unit rows, those rows as products take them, their targets.

    ``norm_b1`` are the lengths of the stored rows, None where it is 1. ``takes_part_b1``, bool, says which classes do,
    None for all; the unit rows of the others are 0.
    """

    start: int
    columns: Columns
    unit_bD: Tensor
    factor_bD: Tensor
    norm_b1: Tensor | None
    targets_of_shard: Targets
    takes_part_b1: Tensor | None

    @property
    def targets(self) -> Targets:
        """Those in the block, placed from its start on."""
        return self.targets_of_shard.within(self.start, self.start + len(self.unit_bD))

    def place_targets(self, matrix_Nb: Float[Tensor, "N b"], values_N: Float[Tensor, " N"]) -> None:
        """Write the targets' own values into the block's matrix."""
        rows, places, is_here = self.targets
        matrix_Nb[rows, places] = torch.where(is_here, values_N[rows].to(matrix_Nb.dtype), matrix_Nb[rows, places])

    def sum_over_classes(self, terms_Nb: Float[Tensor, "N b"]) -> Float[Tensor, " N"]:
        """``(N,)``: the sum over the classes that take part, in one reading of the matrix."""
        if self.takes_part_b1 is None:
            return terms_Nb.sum(dim=1)
        return terms_Nb @ self.takes_part_b1.squeeze(1).to(terms_Nb.dtype)

    @property
    def have_targets(self) -> Bool[Tensor, " b"]:
        """``(b,)``: which of the classes are the batch's own."""
        return self.targets.marked(len(self.unit_bD))

    def weights(self, sample_rate: float, like: Tensor) -> Float[Tensor, " b"]:
        """``(b,)``, of the dtype of ``like``: how often each class counts that was drawn at this rate.

        So that sums are right on average. The batch's own classes, which always take part, count once.
        """
        return like.new_full((len(self.unit_bD),), 1 / sample_rate).masked_fill_(self.have_targets, 1.0)

    def are_moved(self, slopes_Nb: Float[Tensor, "N b"]) -> Bool[Tensor, "b 1"]:
        """``(b, 1)``: which classes have a slope or are targets."""
        return ((slopes_Nb != 0).any(dim=0) | self.have_targets).unsqueeze(1)

    def row_gradient(
        self,
        grad_bD: Float[Tensor, "b D"],
        applies: Tensor | None,
        scratch: Scratch,
        are_moved_b1: Bool[Tensor, "b 1"] | None = None,
    ) -> RowGradient:
        """What the unit rows' gradient, which is overwritten, is to the rows.

        0 where ``applies``, ``()``, is False, and for classes that are not moved or take no part.
        """
        for also in (self.takes_part_b1, are_moved_b1):
            if also is not None:
                applies = also if applies is None else also & applies
        return RowGradient(self.columns, self._tangent(grad_bD, applies, scratch), applies)

    def _tangent(self, grad_bD: Tensor, applies: Tensor | None, scratch: Scratch) -> Tensor:
        """:func:`cosine.tangent_gradient`; on a CPU in place, with the buffers of every block."""
        if grad_bD.is_cuda:
            if applies is None:
                return _tangent_gradient(grad_bD, self.unit_bD, self.norm_b1)
            return _tangent_gradient_or_zero(grad_bD, self.unit_bD, self.norm_b1, applies)
        products_bD = torch.mul(grad_bD, self.unit_bD, out=scratch("products", grad_bD.shape, grad_bD))
        grad_bD.addcmul_(products_bD.sum(dim=1, keepdim=True), self.unit_bD, value=-1)
        if applies is not None:
            grad_bD.masked_fill_(~applies, 0.0)
        return grad_bD if self.norm_b1 is None else grad_bD.div_(self.norm_b1)
