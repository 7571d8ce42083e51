"""What a row optimizer is told of one block's update."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from partial_fc.rows.sharding import Columns


class Update(NamedTuple):
    """The columns of one block, the step, and, where the device alone knows, whether the update applies to them."""

    columns: Columns
    step: int
    applies: Tensor | None
    numbers: dict[tuple[float, float, torch.dtype], Tensor]

    def number(self, value: float, otherwise: float, like: Tensor) -> float | Tensor:
        """``value``, or ``otherwise`` where the update does not apply."""
        if self.applies is None:
            return value
        key = value, otherwise, like.dtype
        if key not in self.numbers:
            self.numbers[key] = torch.where(self.applies, value, like.new_full((), otherwise))
        return self.numbers[key]
