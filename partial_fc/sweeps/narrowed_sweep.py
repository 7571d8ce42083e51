"""The near road of a GPU: one look at all classes, then by blocks over those that it found.

A CPU lists the pairs that may lie beyond τ (``near_sweep.py``). A GPU is fast at products of whole matrices and slow to
be asked: so here the look marks classes, the host waits once, to learn how many they are, and the rest of the step is a
:class:`Sweep` over these columns alone. The other classes have no slope, and their rows are not moved: the step is that
of all classes but for rounding, whether few were found or many.

Legend: ``c`` this rank's classes that are looked at, ``b`` one block's; ``N`` rows of the global batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from partial_fc.functional.cosine import blocks
from partial_fc.functional.look import least_product
from partial_fc.slopes import Near
from partial_fc.sweeps.sweep import Sweep

MOST_FOUND = 1 / 2  # of the classes: where more are found, picking them out costs more than it saves
_LOOK_DTYPE = torch.bfloat16


@dataclass
class NarrowedSweep(Sweep):
    """A :class:`Sweep` for slopes that most classes do not have, over the classes that may have one and the targets."""

    def own_near(self, above: float) -> Near:
        """See :meth:`Sweep.own_near`; what is asked from here on concerns the classes that were found."""
        places = torch.nonzero(self._may_be_near(above)).squeeze(1)  # the host waits for their number
        if len(places) <= MOST_FOUND * self.num_columns:
            self.columns, self.takes_part = self._columns(places), None
            self.targets = self.targets.among(places)
        return super().own_near(above)

    def _may_be_near(self, above: float) -> Bool[Tensor, " c"]:
        """Which classes may have a cosine above ``above`` with an image, are an image's own, or are not finite."""
        factor_DN = self.unit_ND.to(_LOOK_DTYPE).T
        least = least_product(above, len(factor_DN), _LOOK_DTYPE)
        marked_c = self.targets.marked(self.num_columns)
        with _sums_in_float32():
            for drawn in blocks(self.num_columns, self.block_width()):
                unit_bD, _ = self._units(self._columns(drawn))
                factor_bD = self.scratch("look", unit_bD.shape, unit_bD, _LOOK_DTYPE).copy_(unit_bD)
                shape = len(factor_bD), factor_DN.shape[1]
                product_bN = torch.mm(factor_bD, factor_DN, out=self.scratch("found", shape, factor_bD))
                marked_c[drawn] |= ~(product_bN.amax(dim=1) < least)  # NaN is marked
        return marked_c if self.takes_part is None else marked_c.logical_and_(self.takes_part)


@contextmanager
def _sums_in_float32() -> Iterator[None]:
    """As the bound supposes: by default cuBLAS may round parts of a long sum to bfloat16 before it adds them."""
    settings = torch.backends.cuda.matmul
    before = settings.allow_bf16_reduced_precision_reduction
    settings.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        settings.allow_bf16_reduced_precision_reduction = before
