"""What is known of the class rows from one step to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from partial_fc.rows.optimizers import retract_rows


class KnownRows:
    """That the rows have unit length, and their Gram matrix where a sweep left one: until another hand changes them.

    Only the row optimizer leaves such rows. An optimizer of torch's, a loaded checkpoint or an assignment under
    ``torch.no_grad()`` shows in the weight's address or version; a change through ``weight.data`` does not.
    """

    def __init__(self) -> None:
        self._state: tuple[int, int] | None = None
        self._gram_DD: Tensor | None = None

    def note(self, weight_cD: Tensor, gram_DD: Tensor | None) -> None:
        """The rows have unit length as they stand, but for rounding, and this Gram matrix, where it is known."""
        self._state, self._gram_DD = _state(weight_cD), gram_DD

    def forget(self) -> None:
        """Know nothing: a new dtype may leave address and version as they were."""
        self._state = self._gram_DD = None

    def look(self, weight_cD: Tensor, *, may_retract: bool) -> tuple[bool, Tensor | None]:
        """Whether the rows have unit length to the last bit as they stand, and their Gram matrix where it is known.

        Where nothing is known and ``may_retract``, they are brought to unit length here, those that have it staying as
        they are to the bit. Rows in bfloat16 have it but for rounding, which is not enough.
        """
        is_exact = weight_cD.dtype in (torch.float32, torch.float64)
        if self._state == _state(weight_cD):
            return is_exact, self._gram_DD
        if not (may_retract and is_exact):
            return False, None
        retract_rows(weight_cD.detach())
        self.note(weight_cD, None)
        return True, None


def _state(weight_cD: Tensor) -> tuple[int, int]:
    return weight_cD.data_ptr(), weight_cD._version
