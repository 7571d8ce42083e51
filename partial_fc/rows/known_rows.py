"""What is known of the class rows from one step to the next."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from partial_fc.functional.look import Quantised
from partial_fc.rows.sphere import retract_rows


class Known(NamedTuple):
    """Whether all rows have unit length but for the last rounding; Gram matrix and rows in int8, where known."""

    are_unit: bool = False
    gram_DD: Tensor | None = None
    int8: Quantised | None = None


class KnownRows:
    """What a step left of the rows: that they have unit length, and what :class:`Known` holds.

    Until another hand changes them. Only the row optimizer leaves such rows. An optimizer of torch's, a loaded
    checkpoint or an assignment under ``torch.no_grad()`` shows in the weight's address or version; a change through
    ``weight.data`` does not.

    ``moves``: how many backward passes have moved the rows.
    """

    def __init__(self) -> None:
        self.moves = 0
        self._state: tuple[int, int] | None = None
        self._known = Known()

    def remember(self, weight_cD: Tensor, gram_DD: Tensor | None = None, int8: Quantised | None = None) -> None:
        """That the rows, as they stand, have unit length but for rounding, and the rest where it is known.

        Rows in bfloat16 are too coarse for unit length.
        """
        self._state, self._known = _state(weight_cD), Known(_are_fine(weight_cD), gram_DD, int8)

    def keep_int8(self, int8: Quantised) -> None:
        """The rows in int8, of rows as they stand since they were last asked for."""
        self._known = self._known._replace(int8=int8)

    def forget(self) -> None:
        """Know nothing: a new dtype may leave address and version as they were."""
        self._state, self._known = None, Known()

    def known(self, weight_cD: Tensor, *, may_retract: bool) -> Known:
        """What is known of the rows as they stand.

        Rows of which nothing is known are brought to unit length here, where ``may_retract`` and unless they are
        bfloat16; rows that have unit length stay bitwise equal.
        """
        if self._state != _state(weight_cD):
            self.forget()
            if may_retract:
                if _are_fine(weight_cD):
                    retract_rows(weight_cD.detach())
                self.remember(weight_cD)
        return self._known


def _state(weight_cD: Tensor) -> tuple[int, int]:
    return weight_cD.data_ptr(), weight_cD._version


def _are_fine(weight_cD: Tensor) -> bool:
    return weight_cD.dtype in (torch.float32, torch.float64)
