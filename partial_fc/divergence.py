"""Training that diverged: what is said, and what is refused."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from partial_fc import late_answer
from partial_fc.classifier import ShardedClassifier


class TrainingDiverged(RuntimeError):  # noqa: N818  # the name says what happened, as StopIteration's does
    """The loss, or a weight about to be saved, is not finite. Raised on all ranks at the same step."""


class LossCheck:
    """Stops the training where a loss is not finite, so that no weight is updated by it, and waits for no GPU.

    On a CPU the loss is at hand: :meth:`check` raises before the backward pass. A GPU's loss is read a step later.
    Until then the device itself leaves the weights as they are: the class rows by
    :class:`partial_fc.cosine_loss.Moved`, the backbone by ``found_inf``, which torch's fused optimizers take from the
    device. With another optimizer :meth:`check` waits for the loss. The loss is the same number on every rank, so all
    ranks stop at the same step.
    """

    def __init__(self, head: ShardedClassifier, optimizer: torch.optim.Optimizer) -> None:
        self._head, self._optimizer = head, optimizer
        self._is_fused = all(group.get("fused") for group in optimizer.param_groups)
        self._open: _Loss | None = None

    def check(self, loss: Float[Tensor, ""], step: int) -> None:
        """Take the loss of ``step`` before its backward pass. Raises TrainingDiverged for it or for the one before."""
        self.settle()
        is_finite = torch.isfinite(loss.detach())
        self._open = _Loss(step, loss.detach(), dict(self._head.statistics), late_answer.LateAnswer(is_finite))
        if late_answer.is_known_late(is_finite) and self._is_fused:
            self._optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
        else:
            self.settle()

    def settle(self) -> None:
        """Raise TrainingDiverged if the last loss was not finite, ValueError for labels out of range."""
        last, self._open = self._open, None
        if last is not None and not last.is_finite.read():
            self._head.refuse_bad_labels()
            raise TrainingDiverged(_explained(last))


class _Loss(NamedTuple):
    step: int
    loss: Tensor
    statistics: dict[str, Tensor]
    is_finite: late_answer.LateAnswer


def _explained(last: _Loss) -> str:
    figures = ", ".join(f"{name} {float(value):.4g}" for name, value in last.statistics.items())
    return (
        f"the loss is {last.loss.item()} at step {last.step} ({figures}); no weight was updated by it. Look at the "
        "last reports: a scale that ran up or a median target angle that stays at 1.57 asks for smaller learning "
        "rates, a longer warm-up or a smaller largest scale; a sudden jump asks for a look at the images of that step"
    )


def refuse_spoilt_weights(backbone: nn.Module, head: ShardedClassifier, step: int) -> None:
    """Raise TrainingDiverged on all ranks when a weight on any of them is not finite: never save such a model.

    A finite loss can have a gradient that is not. One pass over the weights, in no memory; an all-reduce of a number.
    """
    weights = [each.detach() for each in (*backbone.parameters(), head.weight) if each.numel()]
    extremes = torch.stack([extreme.float() for each in weights for extreme in torch.aminmax(each)])  # NaN is both
    if int(head.world.all_sum((~torch.isfinite(extremes)).sum())):
        raise TrainingDiverged(
            f"weights are not finite after step {step}: the model is not saved, an earlier checkpoint stays "
            "the last. The loss was finite and its gradient was not: look for images without any content in the last "
            "batches, and try smaller learning rates or a shorter gradient"
        )
