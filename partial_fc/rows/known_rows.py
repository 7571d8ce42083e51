"""What is known of the class rows from one step to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from partial_fc.rows.sphere import retract_rows


class KnownRows:
    """That the rows have unit length, and their Gram matrix where a sweep left one: until another hand changes them.

    Only the row optimizer leaves such rows. An optimizer of torch's, a loaded checkpoint or an assignment under
    ``torch.no_grad()`` shows in the weight's address or version; a change through ``weight.data`` does not.

    ``moves``: how many backward passes have moved the rows.
    """

    def __init__(self) -> None:
        self.moves = 0
        self._state: tuple[int, int] | None = None
        self._gram_DD: Tensor | None = None

    def remember(self, weight_cD: Tensor, gram_DD: Tensor | None) -> None:
        """That the rows, as they stand, have unit length but for rounding, and this Gram matrix where it is known."""
        self._state, self._gram_DD = _state(weight_cD), gram_DD

    def forget(self) -> None:
        """Know nothing: a new dtype may leave address and version as they were."""
        self._state = self._gram_DD = None

    def known(self, weight_cD: Tensor, *, may_retract: bool) -> tuple[bool, Tensor | None]:
        """Whether all rows have unit length but for the last rounding, and the rows' Gram matrix where it is known.

        Rows of which nothing is known are brought to unit length here, where ``may_retract``; rows that have unit
        length stay bitwise equal. Rows in bfloat16 are too coarse for unit length: the answer is False for them.
        """
        is_exact = weight_cD.dtype in (torch.float32, torch.float64)
        if self._state == _state(weight_cD):
            return is_exact, self._gram_DD
        if not (may_retract and is_exact):
            return False, None
        retract_rows(weight_cD.detach())
        self.remember(weight_cD, None)
        return True, None


def _state(weight_cD: Tensor) -> tuple[int, int]:
    return weight_cD.data_ptr(), weight_cD._version
