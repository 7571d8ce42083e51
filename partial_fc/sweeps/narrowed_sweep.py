"""The near road of a GPU: one look at all classes, then by blocks over those that it found.

A CPU lists the pairs that may lie beyond τ (``near_sweep.py``). A GPU is fast at products of whole matrices and slow to
be asked: so here the look marks classes, the host waits once, to learn how many they are, and the rest of the step is a
:class:`Sweep` over these columns alone. The other classes have no slope, and their rows are not moved: the step is that
of all classes but for rounding. Where more than half are marked, as of an untrained network, it goes over all.

Where all rows of the shard are looked at, and have unit length in float32, the look is one kernel, if Triton is
installed (``look_kernel.py``).

Legend: ``c`` this rank's classes that are looked at, ``b`` one block's; ``N`` rows of the global batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from partial_fc.compiling import is_not_of_device, unless_it_fails
from partial_fc.functional.cosine import blocks
from partial_fc.functional.look import least_product
from partial_fc.slopes import Near
from partial_fc.sweeps.sweep import Sweep

MOST_FOUND = 1 / 2  # of the classes: where more are found, picking them out costs more than it saves


@dataclass
class NarrowedSweep(Sweep):
    """A :class:`Sweep` for slopes that most classes do not have, over the classes that may have one and the targets."""

    def own_near(self, above: float) -> Near:
        """See :meth:`Sweep.own_near`; what is asked from here on concerns the classes that were found."""
        places = torch.nonzero(self._may_be_near(above)).squeeze(1)  # the host waits for their number
        if len(places) <= MOST_FOUND * self.num_columns:
            self.columns, self.takes_part = self._columns(places), None
            self.targets = self.targets.among(places)
            self.__dict__.pop("target_places_N", None)
        return super().own_near(above)

    def _may_be_near(self, above: float) -> Bool[Tensor, " c"]:
        """Which classes may have a cosine above ``above`` with an image, are an image's own, or are not finite."""
        dtype = torch.bfloat16 if self.unit_ND.dtype == torch.float32 else self.unit_ND.dtype
        factor_ND, least = self.unit_ND.to(dtype), least_product(above, self.unit_ND.shape[1], dtype)
        are_whole = self.are_unit and self.columns is None and self.rows_cD.is_contiguous()
        has_kernel = self.rows_cD.is_cuda and dtype == torch.bfloat16 and are_whole
        reached_c = (_reached_by_kernel if has_kernel else NarrowedSweep.reached_by_blocks)(self, factor_ND, least)
        marked_c = reached_c.logical_or_(self.targets.marked(self.num_columns))
        return marked_c if self.takes_part is None else marked_c.logical_and_(self.takes_part)

    def reached_by_blocks(self, factor_ND: Float[Tensor, "N D"], least: float) -> Bool[Tensor, " c"]:
        """Whether a row's product with any of ``factor_ND``, in its dtype, is ``least`` or more, or NaN."""
        reached_c = torch.empty(self.num_columns, dtype=torch.bool, device=factor_ND.device)
        for drawn in blocks(self.num_columns, self.block_width()):
            unit_bD, _ = self._units(self._columns(drawn))
            factor_bD = self.scratch("rows", unit_bD.shape, unit_bD, factor_ND.dtype).copy_(unit_bD)
            product_bN = self._product("push", factor_bD, factor_ND.T)
            reached_c[drawn] = ~(product_bN.amax(dim=1) < least)
        return reached_c


def by_kernel(sweep: NarrowedSweep, factor_ND: Tensor, least: float) -> Tensor:
    """As :meth:`NarrowedSweep.reached_by_blocks`, of all rows of a shard, which are of unit length."""
    from partial_fc.sweeps.look_kernel import reached  # needs Triton

    return reached(sweep.rows_cD, factor_ND, least)


_reached_by_kernel = unless_it_fails(
    by_kernel, NarrowedSweep.reached_by_blocks, "the look at all classes", is_not_of_device
)
