"""Optimizers of class rows, applied in the sweep that makes the gradient: no gradient of the weights' size exists.

Rows have unit length and stay so: each update ends with a retraction to the sphere, in the same pass.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RowSGD(nn.Module):
    """SGD with momentum for class rows: ``v ← μ v + g``, ``w ← (w - η v) / |w - η v|``.

    ``g`` is the gradient of the loss's SUM over the global batch, not of its mean, so the learning rate is a step per
    positive: the pull of one image on its class does not fade as the batch grows. Rows that take no part in a step
    (class sampling) keep weight and momentum to the bit. There is no weight decay: on unit rows the retraction
    would undo it at once.
    """

    momentum_cD: Tensor | None

    def __init__(self, learning_rate: float, momentum: float = 0.0) -> None:
        super().__init__()
        if not 0 <= learning_rate < math.inf or not 0 <= momentum < 1:
            raise ValueError(f"learning_rate={learning_rate}, momentum={momentum}: expected >= 0 and in [0, 1)")
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.register_buffer("momentum_cD", None)

    def attach(self, rows_cD: Float[Tensor, "c D"]) -> None:
        """Make the state for these rows; the classifier calls it once."""
        self.momentum_cD = torch.zeros_like(rows_cD) if self.momentum else None

    @torch.no_grad()
    def update(self, rows_cD: Tensor, columns: slice | Tensor, grad_bD: Float[Tensor, "b D"]) -> None:
        """Move the rows at ``columns`` against the summed gradient ``grad_bD`` and back to unit length."""
        direction_bD = grad_bD
        if self.momentum_cD is not None:
            direction_bD = torch.add(grad_bD, self.momentum_cD[columns], alpha=self.momentum)
            self.momentum_cD[columns] = direction_bD
        moved_bD = torch.add(rows_cD[columns], direction_bD, alpha=-self.learning_rate)
        rows_cD[columns] = torch.nn.functional.normalize(moved_bD, dim=1)
