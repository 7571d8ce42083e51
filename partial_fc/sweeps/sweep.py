"""One shard's classes, a block at a time: sums over the other classes, and both gradients from the slopes.

Legend: ``N`` rows of the global batch; ``c`` this rank's classes, ``b`` one block's; ``D`` dimensions. A ``column``
counts within the shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from partial_fc.functional import cosine
from partial_fc.functional.gram import sums_in_float32
from partial_fc.functional.look import Quantised
from partial_fc.rows.sharding import Columns, owned_targets
from partial_fc.rules import Rule, near_others, sum_over_others, with_targets
from partial_fc.scratch import Scratch
from partial_fc.slopes import Cosines, Near, Slopes
from partial_fc.sweeps.block import Block, RowGradient
from partial_fc.world import World

CPU_BLOCK_ELEMENTS = 1 << 20  # of a block's cosines, or of its rows if they are more: 4 MiB, to stay in cache
GPU_BLOCK_ELEMENTS = 1 << 26  # 256 MiB: large enough to fill the machine, small beside the weights


@dataclass
class Sweep:
    """One step on one shard: what the sweeps before the gradient's and the gradient's own have in common.

    ``rows_cD`` are this shard's rows, ``are_unit`` whether their length is known to be 1; ``unit_ND`` the global
    batch's unit embeddings, of which rank r has ``counts[r]``. ``columns`` are those looked at, in rising order, and
    ``takes_part``, bool, which of them take part; None stands for all; those not of the batch were drawn with the
    chance ``sample_rate``. Products with the rows run in ``product_dtype``; sums, targets and gradients are float32 at
    least. ``block_classes`` None means what stays in the cache. Of the first sweep's cosines as many are kept for the
    others as ``kept_bytes`` hold, as the product gave them: results are bitwise equal. All are N·c numbers and save
    2·N·c·D operations a sweep. ``next_gram_DD`` and ``next_int8`` are the rows' Gram matrix and the rows in int8 after
    the step, where they were made.
    """

    world: World
    num_classes: int
    shard: range
    rows_cD: Tensor
    are_unit: bool
    unit_ND: Tensor
    labels_N: Tensor
    counts: Sequence[int]
    product_dtype: torch.dtype
    columns: Tensor | None = None
    takes_part: Tensor | None = None
    sample_rate: float = 1.0
    block_classes: int | None = None
    kept_bytes: int = 0
    scratch: Scratch = field(default_factory=Scratch)
    next_gram_DD: Tensor | None = field(default=None, init=False)
    next_int8: Quantised | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.factor_ND = self.unit_ND.to(self.product_dtype)
        targets = owned_targets(self.labels_N, self.shard)
        self.targets = targets if self.columns is None else targets.among(self.columns)
        self._kept: dict[int, Tensor] = {}

    @property
    def num_columns(self) -> int:
        """How many classes of this shard are looked at."""
        return len(self.rows_cD if self.columns is None else self.columns)

    def cosines(self) -> Cosines:
        """What an objective may ask of this step: the same on every rank."""
        return Cosines(
            self.num_classes,
            self._num_negatives(),
            self.unit_ND.shape[1],
            self.own_target_cosines(),
            self.world.all_sum,
            self.own_sum_over_negatives,
            self.own_squares,
            self.own_near,
        )

    def own_target_cosines(self) -> Float[Tensor, " N"]:
        """``(N,)``: the target cosines whose class lies here, and 0 elsewhere: the batch's are the sum over ranks."""
        cos_N = self.unit_ND.new_zeros(len(self.unit_ND))
        if self.num_columns:
            rows, places, is_here = self.targets
            cos_N[rows] = torch.linalg.vecdot(self.unit_ND[rows], self._target_units(places)) * is_here
        return cos_N

    def own_sum_over_negatives(self, term: Rule) -> Float[Tensor, " N"]:
        """``(N,)``: this shard's sum of ``term(cos_Nb)`` over all classes but the targets."""
        nothing_N = torch.zeros_like(self.unit_ND[:, 0])
        return sum((self._sum_over_others(term, block) for block in self._blocks()), start=nothing_N)

    def own_squares(self) -> Float[Tensor, " N"]:
        """``(N,)``: this shard's sum of squared cosines over all classes but the targets."""
        return self.own_sum_over_negatives(Rule(Tensor.square_))

    def own_near(self, above: float) -> Near:
        """Of this shard's classes but the targets those with a cosine above ``above``: see :class:`Near`."""
        sums_2N, threshold = self.unit_ND.new_zeros(2, len(self.unit_ND)), self.unit_ND.new_full((), above)
        for block in self._blocks():
            weights_b = block.weights(self.sample_rate, self.unit_ND)
            sums_2N += near_others(self._product_of(block), self._places_N(block), weights_b, threshold)
        return Near(*sums_2N)

    def row_gradients(self, slopes: Slopes, gain: Tensor, applies: Tensor | None = None) -> Iterator[RowGradient]:
        """Block by block, the rows' gradient, times ``gain``.

        0 where ``applies``, ``()`` bool, is False, even if the loss is not finite; with :attr:`Slopes.near_above` for
        rows without a slope. A block's gradient and rows may be overwritten: nothing needs them any more. All blocks
        are to be taken, on every rank; the embeddings' gradient is made on the way.
        """
        grad_ND = torch.zeros_like(self.unit_ND)
        for block in self._blocks():
            slopes_Nb = self._slopes(slopes, block)
            grad_ND += self._product("pull", slopes_Nb, block.factor_bD)
            grad_bD = self._product("push", slopes_Nb.T, self.factor_ND).mul_(gain)
            moved_b1 = None if slopes.near_above is None else block.are_moved(slopes_Nb)
            yield block.row_gradient(grad_bD, applies, self.scratch, moved_b1)
        self._send(grad_ND.mul_(gain))

    def embedding_gradient(self) -> Float[Tensor, "n D"]:
        """``(n, D)``: the gradient of this rank's unit embeddings, of the MEAN over the batch; waits for all ranks.

        Once :meth:`row_gradients` has ended. One reduce-scatter of N·D numbers, begun as soon as the sum is whole.
        """
        return self._arriving()

    def _send(self, grad_ND: Tensor) -> None:
        """Begin to sum the ranks' parts of the embeddings' gradient."""
        self._arriving = self.world.start_scatter_sum_rows(grad_ND.div_(len(grad_ND)), self.counts)

    def _num_negatives(self) -> int | Tensor:
        """How many classes stand against a target: counted over the ranks where they are drawn. One all-reduce then."""
        if self.columns is None:
            return self.num_classes - 1
        number = self.labels_N.new_full((), self.num_columns) if self.takes_part is None else self.takes_part.sum()
        return self.world.all_sum(number) - 1

    def _target_units(self, places: Tensor) -> Tensor:
        rows_mD = self.rows_cD[self._columns(places)].to(self.unit_ND.dtype)
        return rows_mD if self.are_unit else cosine.unit_rows(rows_mD)[0]

    def block_width(self) -> int:
        """How many classes a block has, but for the last."""
        elements = GPU_BLOCK_ELEMENTS if self.unit_ND.is_cuda else CPU_BLOCK_ELEMENTS
        return self.block_classes or max(elements // max(self.unit_ND.shape), 64)

    def _blocks(self) -> Iterator[Block]:
        """The shard block by block; a block's tensors are overwritten by the next one's."""
        return (self._block(drawn) for drawn in cosine.blocks(self.num_columns, self.block_width()))

    def _block(self, drawn: slice) -> Block:
        columns = self._columns(drawn)
        takes_part_b1 = None if self.takes_part is None else self.takes_part[drawn].unsqueeze(1)
        unit_bD, norm_b1 = self._units(columns, takes_part_b1)
        factor_bD = self.in_product_dtype("rows", unit_bD)
        return Block(drawn.start, columns, unit_bD, factor_bD, norm_b1, self.targets, takes_part_b1)

    def _units(self, columns: Columns, takes_part_b1: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Rows at unit length, or 0 where they take no part, and their norms where they were of another before."""
        rows_bD = self.rows_cD[columns] if isinstance(columns, slice) else self._gathered(columns)
        if takes_part_b1 is not None:
            rows_bD.masked_fill_(~takes_part_b1, 0.0)
        if self.are_unit:
            return rows_bD, None
        unit_bD, norm_b1 = cosine.unit_rows(rows_bD.to(self.unit_ND.dtype))
        return unit_bD, norm_b1

    def _gathered(self, columns: Tensor) -> Tensor:
        shape = len(columns), self.rows_cD.shape[1]
        return torch.index_select(self.rows_cD, 0, columns, out=self.scratch("gathered", shape, self.rows_cD))

    def _sum_over_others(self, term: Rule, block: Block) -> Float[Tensor, " N"]:
        """``(N,)``: of ``term`` of the block's cosines the sum over the classes but the targets."""
        if self.unit_ND.is_cuda:
            takes_part_b = None if block.takes_part_b1 is None else block.takes_part_b1.squeeze(1)
            places_N, dtype = self._places_N(block), self.unit_ND.dtype
            return sum_over_others(term, self._product_of(block), places_N, takes_part_b, dtype)
        terms_Nb = term(self._cosines(block))
        block.place_targets(terms_Nb, torch.zeros_like(self.unit_ND[:, 0]))
        return block.sum_over_classes(terms_Nb)

    def _slopes(self, slopes: Slopes, block: Block) -> Float[Tensor, "N b"]:
        """``(N, b)``: the slopes of the block's cosines, as products take them."""
        rule = slopes.negatives
        if slopes.near_above is not None and self.sample_rate < 1:
            rule = rule.weighted(block.weights(self.sample_rate, self.unit_ND))
        if self.unit_ND.is_cuda:
            matrix = self._product_of(block), self._places_N(block), slopes.target_N
            return with_targets(rule, *matrix, self.unit_ND.dtype)
        slopes_Nb = rule(self._cosines(block))
        block.place_targets(slopes_Nb, slopes.target_N)
        return self.in_product_dtype("slopes", slopes_Nb)

    def _places_N(self, block: Block) -> Int[Tensor, " N"]:
        """``(N,)``: as :attr:`target_places_N`, from the block on; outside of the block what no class of it has."""
        return self.target_places_N - block.start

    @cached_property
    def target_places_N(self) -> Int[Tensor, " N"]:
        """``(N,)``: where a row's target lies among the classes looked at; -1 where it lies elsewhere."""
        rows, places, is_here = self.targets
        return torch.full_like(self.labels_N, -1).index_copy_(0, rows, torch.where(is_here, places, -1))

    def _cosines(self, block: Block) -> Float[Tensor, "N b"]:
        """``(N, b)`` in float32 at least, to be overwritten: only the product runs in its own dtype."""
        product_Nb = self._product_of(block)
        if product_Nb.dtype == self.unit_ND.dtype and block.start not in self._kept:
            return product_Nb
        return self.scratch("cosines", product_Nb.shape, self.unit_ND).copy_(product_Nb)

    def _product_of(self, block: Block) -> Tensor:
        """``(N, b)``: the cosines as the product gave them, kept where there is room."""
        if (kept_Nb := self._kept.get(block.start)) is not None:
            return kept_Nb
        shape = len(self.unit_ND), len(block.unit_bD)
        size_bytes = shape[0] * shape[1] * self.product_dtype.itemsize
        if size_bytes > self.kept_bytes:
            return torch.mm(self.factor_ND, block.factor_bD.T, out=self.scratch("product", shape, self.factor_ND))
        self.kept_bytes -= size_bytes
        self._kept[block.start] = torch.mm(self.factor_ND, block.factor_bD.T)
        return self._kept[block.start]

    def in_product_dtype(self, name: str, matrix: Tensor) -> Tensor:
        """``matrix`` as a product takes it."""
        if matrix.dtype == self.product_dtype:
            return matrix
        return self.scratch(name, matrix.shape, matrix, self.product_dtype).copy_(matrix)

    def _product(self, name: str, left: Tensor, right: Tensor) -> Tensor:
        """``left @ right`` in float32 at least, to be overwritten."""
        shape = left.shape[0], right.shape[1]
        wide = self.scratch(name, shape, self.unit_ND)
        if left.dtype == wide.dtype:
            return torch.mm(left, right, out=wide)
        if sums_in_float32(left) and wide.dtype == torch.float32:
            return torch.mm(left, right, out_dtype=wide.dtype, out=wide)
        return wide.copy_(torch.mm(left, right, out=self.scratch(name, shape, left)))

    def _columns(self, drawn: Any) -> Any:
        """Columns of the shard from columns among the drawn."""
        return drawn if self.columns is None else self.columns[drawn]
