"""The near road: one look at all classes, then only what is near, for losses of which few classes have a slope.

Beyond a cosine τ alone has another class a slope (:attr:`partial_fc.slopes.Slopes.near_above`). So a step needs

1. one product over the shard, in int8 where the CPU can, that finds the candidates: pairs of image and class that may
   lie beyond τ. A bound of the product's error is taken off τ, so that no true pair is missed;
2. the cosines of the candidates, made anew in float32 at least;
3. the slopes of those beyond τ, and both gradients as sparse products; of the rows only those that have a slope or are
   targets are read again, moved and written.

That is 2·N·c·D operations instead of 6·N·c·D, and few rows moved instead of all. Where there are more candidates than
the sparse products are worth, the step goes the block road (``sweep.py``), which is also the twin.

Legend: ``N`` rows of the global batch; ``b`` classes of one block; ``m`` pairs; ``D`` dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from partial_fc.functional.cosine import blocks
from partial_fc.functional.look import (
    Quantised,
    are_finite,
    least_int8_products,
    least_product,
    quantised,
    reaching,
    sparse_product,
)
from partial_fc.rows.sharding import Columns, Targets
from partial_fc.slopes import Near, Slopes
from partial_fc.sweeps.block import Block, RowGradient
from partial_fc.sweeps.sweep import Sweep

MOST_CANDIDATES = 1 / 64  # of N·c pairs: about where sparse products take as long as the block road's other sweeps
_LOOK_ELEMENTS = 1 << 21  # of a look's products: 8 MiB in int32
_PAIRS_AT_ONCE = 1024  # whose rows stay in the cache


class Pairs(NamedTuple):
    """Images, the places of classes among those looked at, and a cosine or a slope of each."""

    rows: Int[Tensor, " m"]
    places: Int[Tensor, " m"]
    values: Float[Tensor, " m"]

    def sorted(self) -> Pairs:
        """By place; of one place in the order they have."""
        order = torch.argsort(self.places, stable=True)
        return Pairs(*(part[order] for part in self))


class FloatLook:
    """The products of rows with the batch in the sweep's own product dtype, to find cosines above a number."""

    def __init__(self, sweep: NearSweep, above: float) -> None:
        self.sweep, self.is_finite = sweep, are_finite(sweep.unit_ND)
        self.least = least_product(above, sweep.unit_ND.shape[1], sweep.product_dtype)

    def at(self, columns: Columns) -> tuple[Tensor, Tensor]:
        """``(b, N)``, valid until the next call, and ``(b,)``: what a row's products reach at such cosines."""
        unit_bD, factor_ND = self.sweep.units(columns), self.sweep.factor_ND
        factor_bD = self.sweep.in_product_dtype("rows", unit_bD)
        product_bN = self.sweep.scratch("product", (len(factor_bD), len(factor_ND)), factor_ND)
        torch.mm(factor_bD, factor_ND.T, out=product_bN)
        least = self.least if self.is_finite and are_finite(unit_bD) else -math.inf
        return product_bN, product_bN.new_full((len(product_bN),), least)


class Int8Look:
    """Those products in int8, whose sums are exact. Rows that are kept in int8 are taken as they are."""

    def __init__(self, sweep: NearSweep, above: float) -> None:
        self.sweep, self.above = sweep, above
        self.batch = quantised(sweep.unit_ND, have_one_step=True)
        # Read again by every block. For D = 1 `contiguous` would leave strides that _int_mm misreads.
        self.batch_DN = self.batch.integers.T.clone(memory_format=torch.contiguous_format)
        self.kept = sweep.int8
        self.least_c = least_int8_products(above, self.batch, sweep.int8) if sweep.int8 is not None else None

    def at(self, columns: Columns) -> tuple[Tensor, Tensor]:
        """See :meth:`FloatLook.at`."""
        if self.kept is None or self.least_c is None:
            rows = self.sweep.in_int8(columns)
            least_b = least_int8_products(self.above, self.batch, rows)
        else:
            rows, least_b = self.kept.at(columns), self.least_c[columns]
        shape = len(rows.integers), self.batch_DN.shape[1]
        product_bN = self.sweep.scratch("product", shape, self.batch_DN, torch.int32)
        return torch._int_mm(rows.integers, self.batch_DN, out=product_bN), least_b


@dataclass
class NearSweep(Sweep):
    """A :class:`Sweep` for slopes that most classes do not have. For a CPU: the host reads what is found.

    ``int8`` are the shard's rows in int8 where they are known. With ``keep_int8``, where the row optimizer alone moves
    rows, they are made once, handed to it, renewed where rows are moved, and left as ``next_int8`` for the next step.
    """

    int8: Quantised | None = None
    keep_int8: Callable[[Quantised], None] | None = None
    _pairs: Pairs | None = field(default=None, init=False)

    def own_near(self, above: float) -> Near:
        """See :meth:`Sweep.own_near`; the pairs that are found are kept for the gradient."""
        candidates = self._candidates(above)
        if candidates is None:
            return super().own_near(above)
        self._pairs = self._beyond(*candidates, above)
        weights_m, nothing_N = self._weights(self._pairs.places), torch.zeros_like(self.unit_ND[:, 0])
        squares_m = (self._pairs.values - above).square_().mul_(weights_m)
        return Near(*(nothing_N.index_add(0, self._pairs.rows, each) for each in (squares_m, weights_m)))

    def row_gradients(self, slopes: Slopes, gain: Tensor, applies: Tensor | None = None) -> Iterator[RowGradient]:
        """See :meth:`Sweep.row_gradients`; only of rows that have a slope or are targets, where those are few."""
        gradients = super().row_gradients if self._pairs is None else self._few_gradients
        for gradient in gradients(slopes, gain, applies):
            columns = gradient.columns
            yield gradient
            del gradient  # it would live while the next block's is made
            if self.keep_int8 is not None and self.int8 is not None:
                self.int8.put_(columns, self.in_int8(columns))
        self.next_int8 = self.int8 if self.keep_int8 else None

    def units(self, columns: Columns) -> Float[Tensor, "b D"]:
        """Rows at unit length."""
        return self._units(columns)[0].to(self.unit_ND.dtype)

    def in_int8(self, columns: Columns) -> Quantised:
        """Rows at unit length, in int8."""
        unit_bD = self.units(columns)
        return quantised(unit_bD, wide=self.scratch("wide", unit_bD.shape, unit_bD))

    def _look(self, above: float) -> FloatLook | Int8Look:
        """In int8 where the CPU has instructions for it."""
        if look_dtype(self.product_dtype) != torch.int8:
            return FloatLook(self, above)
        if self.int8 is None and self.keep_int8:
            integers_cD = torch.empty_like(self.rows_cD, dtype=torch.int8)
            self.int8 = Quantised(integers_cD, *self.unit_ND.new_empty(2, len(self.rows_cD)))
            for some in blocks(len(self.rows_cD), self.block_width()):
                self.int8.put_(some, self.in_int8(some))
            self.keep_int8(self.int8)
        return Int8Look(self, above)

    def _few_gradients(self, slopes: Slopes, gain: Tensor, applies: Tensor | None) -> Iterator[RowGradient]:
        assert self._pairs is not None
        pairs = self._slopes_of(self._pairs, slopes)
        touched, counts = torch.unique_consecutive(pairs.places, return_counts=True)
        ends = [0, *counts.cumsum(0).tolist()]
        grad_ND = torch.zeros_like(self.unit_ND)
        for drawn in blocks(len(touched), self.block_width()):
            some = Pairs(*(part[ends[drawn.start] : ends[drawn.stop]] for part in pairs))
            block, width = self._touched_block(touched[drawn]), len(counts[drawn])
            within = torch.searchsorted(touched[drawn], some.places)
            grad_ND += sparse_product(some.rows, within, some.values, block.unit_bD, len(grad_ND))
            grad_bD = sparse_product(within, some.rows, some.values, self.unit_ND, width).mul_(gain)
            yield block.row_gradient(grad_bD, applies, self.scratch)
        self._send(grad_ND.mul_(gain))

    def _candidates(self, above: float) -> tuple[Tensor, Tensor] | None:
        """Rows and places of all pairs that may have cosines above ``above``; None where they are too many.

        Beside a row or an embedding that is not finite all are candidates.
        """
        look = self._look(above)
        most = len(self.unit_ND) + int(MOST_CANDIDATES * len(self.unit_ND) * self.num_columns)
        found, number = [(self.targets.rows[:0], self.targets.places[:0])], 0
        width = self.block_classes or max(_LOOK_ELEMENTS // max(len(self.unit_ND), 1024), 64)
        for drawn in blocks(self.num_columns, width):
            places, rows = reaching(*look.at(self._columns(drawn)))
            found.append((rows, places + drawn.start))
            number += len(rows)
            if number > most:
                return None
        rows, places = map(torch.cat, zip(*found, strict=True))
        return rows, places

    def _beyond(self, rows: Tensor, places: Tensor, above: float) -> Pairs:
        """The candidates with a cosine above ``above``, or one that is not finite, but the targets; and the cosines."""
        some = zip(torch.split(rows, _PAIRS_AT_ONCE), torch.split(places, _PAIRS_AT_ONCE), strict=True)
        cos_m = torch.cat([self._target_units(p).mul_(self.unit_ND[r]).sum(dim=1) for r, p in some])
        kept = ~(cos_m <= cos_m.new_tensor(above))
        kept &= places != self.target_places_N[rows]
        return Pairs(rows[kept], places[kept], cos_m[kept])

    def _slopes_of(self, pairs: Pairs, slopes: Slopes) -> Pairs:
        """The slopes of the pairs, and of the targets that lie here, by rising place."""
        rows, places = self._own_targets()
        slopes_m = slopes.negatives(pairs.values.clone()[None])[0].mul_(self._weights(pairs.places))
        more = rows, places, slopes.target_N[rows]
        return Pairs(*map(torch.cat, zip((*pairs[:2], slopes_m), more, strict=True))).sorted()

    def _weights(self, places: Tensor) -> Float[Tensor, " m"]:
        """How often each pair counts, as :meth:`Block.weights`."""
        weights_m = self.unit_ND.new_full((len(places),), 1 / self.sample_rate)
        return weights_m.masked_fill_(torch.isin(places, self._own_targets()[1]), 1.0)

    def _own_targets(self) -> tuple[Tensor, Tensor]:
        """The rows whose class lies here, and its place."""
        rows, places, is_here = self.targets
        return rows[is_here], places[is_here]

    def _touched_block(self, places: Tensor) -> Block:
        columns = self._columns(places)
        unit_bD, norm_b1 = self._units(columns)
        unit_bD = unit_bD.to(self.unit_ND.dtype)
        nowhere = Targets(places[:0], places[:0], torch.empty(0, dtype=torch.bool))
        return Block(0, columns, unit_bD, unit_bD, norm_b1, nowhere, None)


def look_dtype(product_dtype: torch.dtype) -> torch.dtype:
    """What the look is made in: int8 where the CPU has instructions for its products, else ``product_dtype``."""
    return torch.int8 if torch.cpu._is_vnni_supported() else product_dtype
