"""One shard's classes, a block at a time: sums over the other classes, and both gradients from the slopes.

Legend: ``N`` rows of the global batch; ``c`` this rank's classes, ``b`` one block's; ``D`` dimensions. A ``column``
counts within the shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from partial_fc.functional import cosine
from partial_fc.objectives import Cosines, Slopes
from partial_fc.sharding import owned_targets
from partial_fc.world import World

_BLOCK_COSINES = 1 << 20  # the cosines of a block, or its rows' elements if they are more: 4 MiB, to stay in cache


class Block(NamedTuple):
    """Some classes of the shard and their cosines with the global batch."""

    columns: slice | Tensor
    unit_bD: Tensor
    norm_b1: Tensor
    cos_Nb: Tensor
    target_rows: Tensor  # the batch rows whose class is in this block,
    target_places: Tensor  # and where in the block


@dataclass
class Sweep:
    """One step on one shard: what the sweeps before the gradient's and the gradient's own have in common.

    ``rows_cD`` are this shard's rows of any length, ``unit_ND`` the global batch's unit embeddings, ``columns`` the
    columns that take part in rising order, or None for all. ``block_classes`` None means what stays in the cache.
    """

    world: World
    num_classes: int
    shard: range
    rows_cD: Tensor
    unit_ND: Tensor
    labels_N: Tensor
    columns: Tensor | None = None
    block_classes: int | None = None

    def __post_init__(self) -> None:
        self.target_rows, self.target_columns = owned_targets(self.labels_N, self.shard)
        if self.columns is not None:
            self.target_columns = torch.searchsorted(self.columns, self.target_columns)
        self._kept: Block | None = None

    def cosines(self) -> Cosines:
        """What an objective may ask of this step: the same on every rank. One all-reduce of N floats."""
        units_mD, _ = cosine.unit_rows(self.rows_cD[self._place(self.target_columns)].to(self.unit_ND.dtype))
        target_N = self.world.all_sum(cosine.target_cosines(self.unit_ND, units_mD, self.target_rows))
        num_drawn = self.num_classes
        if self.columns is not None:
            num_drawn = int(self.world.all_sum(torch.tensor(self.num_columns, device=target_N.device)))
        return Cosines(target_N, self.num_classes, num_drawn - 1, self.unit_ND.shape[1], self.sum_over_negatives)

    @property
    def num_columns(self) -> int:
        """How many classes of this shard take part."""
        return len(self.rows_cD) if self.columns is None else len(self.columns)

    def sum_over_negatives(self, term: Callable[[Tensor], Tensor]) -> Float[Tensor, " N"]:
        """``(N,)``: the sum of ``term(cos_Nb)`` over all classes but the targets. One all-reduce of N floats."""
        total_N = self.unit_ND.new_zeros(
            len(self.unit_ND), dtype=torch.promote_types(self.unit_ND.dtype, torch.float32)
        )
        for block in self._blocks():
            terms_Nb = term(block.cos_Nb)
            terms_Nb[block.target_rows, block.target_places] = 0.0
            total_N += terms_Nb.sum(dim=1)
        return self.world.all_sum(total_N)

    def gradients(
        self, slopes: Slopes, gain: Tensor, use_gradient: Callable[[slice | Tensor, Tensor], None]
    ) -> Float[Tensor, "N D"]:
        """This shard's part of the unit embeddings' gradient: of the SUM over the batch, times ``gain``.

        On the way ``use_gradient(columns, grad_bD)`` is handed each block of the class rows' gradient.
        """
        wide = torch.promote_types(self.unit_ND.dtype, torch.float32)
        grad_ND = torch.zeros_like(self.unit_ND, dtype=wide)
        for block in self._blocks():
            slopes_Nb = slopes.negatives(block.cos_Nb)
            slopes_Nb[block.target_rows, block.target_places] = slopes.target_N[block.target_rows]
            slopes_Nb = (slopes_Nb * gain).to(self.unit_ND.dtype)
            grad_ND += slopes_Nb @ block.unit_bD
            grad_bD = (slopes_Nb.T @ self.unit_ND).to(wide)
            use_gradient(block.columns, cosine.tangent_gradient(grad_bD, block.unit_bD, block.norm_b1))
        return grad_ND

    def _blocks(self) -> Iterator[Block]:
        """The shard block by block, made anew in each sweep; a shard of one block is made once and kept."""
        width = self.block_classes or max(_BLOCK_COSINES // max(self.unit_ND.shape), 64)
        if self.num_columns > width:
            return (self._block(columns) for columns in cosine.blocks(self.num_columns, width))
        if self._kept is None and self.num_columns:
            self._kept = self._block(slice(0, self.num_columns))
        return iter([self._kept] if self._kept is not None else [])

    def _block(self, drawn: slice) -> Block:
        inside = (self.target_columns >= drawn.start) & (self.target_columns < drawn.stop)
        columns = self._place(drawn)
        unit_bD, norm_b1 = cosine.unit_rows(self.rows_cD[columns].to(self.unit_ND.dtype))
        cos_Nb = cosine.cosine_block(self.unit_ND, unit_bD)
        places = self.target_columns[inside] - drawn.start
        return Block(columns, unit_bD, norm_b1, cos_Nb, self.target_rows[inside], places)

    def _place(self, drawn: Any) -> Any:
        """Columns of the shard from columns among the drawn."""
        return drawn if self.columns is None else self.columns[drawn]
