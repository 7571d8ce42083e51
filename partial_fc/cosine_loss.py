"""The loss of a cosine classifier as one node of autograd: one step's backward pass, after its forward pass was made.

Legend: ``N`` rows of the global batch, ``n`` this rank's; ``c`` this rank's classes, ``b`` one block's; ``D``
dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from partial_fc import late_answer
from partial_fc.functional import cosine
from partial_fc.fused import fused_on_gpus
from partial_fc.rows.known_rows import KnownRows
from partial_fc.rows.optimizers import RowOptimizer
from partial_fc.rows.sphere import shortened_
from partial_fc.slopes import Slopes
from partial_fc.sweeps.block import RowGradient
from partial_fc.sweeps.sweep import Sweep

_shortened_ = fused_on_gpus(shortened_)


@dataclass(frozen=True)
class Step:
    """What a step's forward pass leaves for its backward pass.

    ``loss`` is the mean over the global batch, NaN where the batch is refused. ``unit_nD`` and ``norm_n1`` are this
    rank's embeddings at unit length and their lengths. ``rows`` says what becomes of the class rows: :func:`frozen`,
    :func:`kept` or a :class:`Moved`.
    """

    sweep: Sweep
    slopes: Slopes
    loss: Tensor
    unit_nD: Tensor
    norm_n1: Tensor
    rows: Rows


class CosineLoss(torch.autograd.Function):
    """``loss = CosineLoss.apply(embeddings_nD, weight_cD, step)``: ``step.loss`` with its gradients.

    Backward makes the slopes and both gradients, block by block.
    """

    @staticmethod
    def forward(ctx: Any, embeddings_nD: Tensor, weight_cD: Tensor, step: Step) -> Tensor:
        """The mean loss of the global batch, ``()``."""
        ctx.step, ctx.dtype = step, embeddings_nD.dtype
        ctx.save_for_backward(weight_cD)
        return step.loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of embeddings ``(n, D)`` and weight ``(c, D)``; None for a weight that has none.

        RuntimeError where the row optimizer has moved the rows since the forward pass.
        """
        step: Step | None = ctx.step
        if step is None or (isinstance(step.rows, Moved) and step.rows.were_moved()):
            raise RuntimeError("the row optimizer has moved the class rows since this forward: backward runs once")
        (weight_cD,) = ctx.saved_tensors  # torch refuses rows that anything else changed since forward
        with torch.autocast(weight_cD.device.type, enabled=False):
            applies = step.rows.begin(grad_outputs[0], step.slopes) if isinstance(step.rows, Moved) else None
            gradients = step.sweep.row_gradients(step.slopes, grad_outputs[0], applies)
            grad_cD = step.rows(weight_cD, gradients, step.sweep)
        grad_nD = cosine.tangent_gradient(step.sweep.embedding_gradient(), step.unit_nD, step.norm_n1)
        if isinstance(step.rows, Moved):
            ctx.step = None  # the kept cosines would live as long as the loss
        return grad_nD.to(ctx.dtype), grad_cD, None


def frozen(weight_cD: Tensor, gradients: Iterator[RowGradient], sweep: Sweep) -> None:
    """Rows that do not change: frozen ones, or those of an evaluation. Their gradients are made and dropped."""
    for _ in gradients:
        pass


def kept(weight_cD: Tensor, gradients: Iterator[RowGradient], sweep: Sweep) -> Tensor:
    """``(c, D)``: the gradient of the MEAN over the global batch, for any optimizer of torch's."""
    grad_cD = torch.zeros_like(weight_cD)
    for columns, grad_bD, _ in gradients:
        grad_cD[columns] = (grad_bD / len(sweep.unit_ND)).to(grad_cD.dtype)
    return grad_cD


class Moved:
    """Rows that the row optimizer moves, block by block, as their gradients are made: no gradient is kept.

    Where ``is_finite``, ``()`` bool, is False, rows and optimizer state stay as they are; on a GPU also where the
    loss is masked (:meth:`begin`).
    """

    def __init__(self, optimizer: RowOptimizer, known_rows: KnownRows, step: int, is_finite: Tensor) -> None:
        self.optimizer, self.known_rows, self.step = optimizer, known_rows, step
        self.is_finite = is_finite
        self.applies: Tensor | None = None
        self._longest: Tensor | None = None
        self._moves_before = known_rows.moves

    def begin(self, gain: Tensor, slopes: Slopes) -> Tensor | None:
        """Where only a device knows: whether the rows are moved by a loss whose own gradient is ``gain``, ``()``.

        They are not where the loss is not finite, and not where ``gain`` is 0: what made it 0 has masked the step.
        """
        if self.optimizer.clip is not None:
            self._longest = self.optimizer.clip * slopes.steepest * gain.abs()
        if late_answer.is_known_late(self.is_finite):
            self.applies = self.is_finite & (gain != 0)
        return self.applies

    def were_moved(self) -> bool:
        """Whether another backward pass has moved the rows since this object was made, in the forward pass.

        Counted, because a rank without classes has no rows whose change torch could notice: that rank would go on
        alone and wait for the others for ever.
        """
        return self.known_rows.moves != self._moves_before

    def __call__(self, weight_cD: Tensor, gradients: Iterator[RowGradient], sweep: Sweep) -> None:
        """Move the rows, and remember that they have unit length and what else the sweep has left."""
        self.known_rows.moves += 1
        if self.applies is None and not self.is_finite:
            frozen(weight_cD, gradients, sweep)
            return
        rows_cD = weight_cD.detach()
        for gradient in gradients:
            grad_bD = gradient.grad_bD if self._longest is None else _shortened_(gradient.grad_bD, self._longest)
            self.optimizer.update(rows_cD, gradient.columns, grad_bD, self.step, gradient.applies)
            del gradient, grad_bD  # it would live while the next block's is made
        self.known_rows.remember(weight_cD, sweep.next_gram_DD, sweep.next_int8)


Rows = Callable[[Tensor, Iterator[RowGradient], Sweep], Tensor | None]
