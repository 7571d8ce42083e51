"""Training that diverges: a step whose loss is no good is skipped and counted, and too many end the run.

A loss is no good where it is not finite, or far above what the losses before were like (a spike). The loss is the same
number on every rank, so all ranks skip the same steps and stop at the same one, without a word between them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from partial_fc import late_answer
from partial_fc.classifier import ShardedClassifier

COUNTED_STEPS = 1000  # the latest steps, among which skipped ones are counted
_DECAY = 0.99  # of the running means of the loss and of its distance from that mean
_FIRST_STEPS = 100  # without a limit: the means are of too few
_LEAST_DEVIATION = 0.01  # of the mean: losses that hardly change are no reason to call the next one a spike


class TrainingDiverged(RuntimeError):  # noqa: N818  # the name says what happened, as StopIteration's does
    """Too many losses, or a weight about to be saved, are no good. Raised on all ranks at the same step."""


@dataclass
class LossCourse:
    """What the losses were like: their running mean, their running mean distance from it, and how many there were.

    ``skipped_steps`` is how many updated no weight since the process started, ``latest_skipped`` which of the latest.
    """

    mean: float = 0.0
    deviation: float = 0.0
    steps: int = 0
    skipped_steps: int = 0
    latest_skipped: deque[int] = field(default_factory=deque)

    def take(self, loss: float) -> None:
        """Go on by the loss of a step that was not skipped."""
        decay = min(_DECAY, self.steps / (self.steps + 1))  # of the first ones the plain mean
        self.deviation = decay * self.deviation + (1 - decay) * abs(loss - self.mean if self.steps else 0.0)
        self.mean = decay * self.mean + (1 - decay) * loss
        self.steps += 1

    def limit(self, spike: float | None) -> float:
        """The largest loss that is no spike: ``spike`` mean distances above the mean; infinite while unknown."""
        if spike is None or self.steps < _FIRST_STEPS:
            return math.inf
        return self.mean + spike * max(self.deviation, _LEAST_DEVIATION * abs(self.mean))

    def was_skipped(self, step: int) -> bool:
        """Whether ``step``, one of the latest, updated no weight."""
        return step in self.latest_skipped

    def numbers(self) -> Float[Tensor, "3"]:
        """All of it in float64, for a checkpoint."""
        return torch.tensor([self.mean, self.deviation, self.steps], dtype=torch.float64)

    def begin_anew(self) -> None:
        """Forget the losses, as those to come may be others; skipped steps still count."""
        self.take_up(LossCourse().numbers())

    def take_up(self, numbers: Float[Tensor, "3"]) -> None:
        """Go on from :meth:`numbers`."""
        self.mean, self.deviation, steps = numbers.tolist()
        self.steps = int(steps)


@dataclass(frozen=True)
class Tolerance:
    """What is skipped before training ends: ``most_skipped`` of the last 1,000 steps.

    A finite loss is a spike where it lies more than ``spike`` mean distances above the mean of those before; None: no
    finite loss is one.
    """

    most_skipped: int = 0
    spike: float | None = None


STRICT = Tolerance()
"""The first step without a finite loss ends the training."""


class LossCheck:
    """Keeps the weights from steps whose loss is no good, and waits for no GPU.

    On a CPU the loss is at hand: such a step is left out before its backward pass. A GPU's loss is read a step later.
    Until then the device itself leaves the weights as they are: the class rows by
    :class:`partial_fc.cosine_loss.Moved`, the backbone by ``found_inf``, which torch's fused optimizers take from the
    device. With another optimizer, any of apex's too, :meth:`to_minimise` waits for the loss. What the forward pass of
    such a step left in the buffers of backbone and objective, as BatchNorm's statistics and AdaCos' scale, is taken
    back when the loss is known.

    ``told(text)`` is called for each step that is skipped.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: ShardedClassifier,
        optimizer: torch.optim.Optimizer,
        course: LossCourse | None = None,
        tolerance: Tolerance = STRICT,
        told: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._head, self._optimizer = head, optimizer
        self._course, self._tolerance, self._told = course or LossCourse(), tolerance, told
        self._is_fused = all(group.get("fused") for group in optimizer.param_groups)
        self._buffers = _Buffers((*backbone.buffers(), *head.objective.buffers()))
        self._open: _Loss | None = None
        self._is_last_good = True

    @property
    def skipped_steps(self) -> int:
        """How many steps updated no weight since the process started."""
        return self._course.skipped_steps

    def to_minimise(self, loss: Float[Tensor, ""], step: int) -> Tensor | None:
        """``loss``, to be given to the backward pass of ``step``; None where the step is skipped.

        On a GPU a loss that is no good is masked: its backward pass moves nothing. Raises TrainingDiverged where this
        step, or the one before, is one too many.
        """
        self.settle()
        limit = _rounded(self._course.limit(self._tolerance.spike), loss.dtype)
        plain = loss.detach()
        self._open = _Loss(step, limit, dict(self._head.statistics), late_answer.LateAnswer(plain))
        self._buffers.keep()
        if late_answer.is_known_late(loss) and self._is_fused:
            is_good = plain <= limit  # never of NaN
            self._optimizer.found_inf = (~is_good).float()  # type: ignore[attr-defined]
            return torch.where(is_good, loss, torch.nan)
        return loss if self.settle() else None

    def is_good(self) -> bool:
        """Whether the last step's loss was good: weights that make bad losses are not worth a checkpoint."""
        self.settle()
        return self._is_last_good

    def settle(self) -> bool:
        """Whether the last step was good, or there was none. Raises as :meth:`to_minimise`, ValueError for bad labels.

        Waits for the loss of that step.
        """
        last, self._open = self._open, None
        if last is None:
            return True
        value = last.value.read()
        self._is_last_good = value <= last.limit
        if self._is_last_good:
            self._course.take(value)
            return True
        self._head.refuse_bad_labels()
        self._buffers.take_back()
        self._course.skipped_steps += 1
        skipped = self._course.latest_skipped
        skipped.append(last.step)
        while skipped[0] <= last.step - COUNTED_STEPS:
            skipped.popleft()
        number, most = len(skipped), self._tolerance.most_skipped
        if number > most:
            raise TrainingDiverged(f"{_explained(last, value)}; {_told_count(number, most)}. {_ADVICE}")
        self._told(f"step {last.step:,} is skipped: {_explained(last, value)}; {_told_count(number, most)}")
        return False


class _Loss(NamedTuple):
    step: int
    limit: float
    statistics: dict[str, Tensor]
    value: late_answer.LateAnswer


class _Buffers:
    """Copies of a module's floating-point buffers, from before the last forward pass and from after it."""

    def __init__(self, buffers: Iterable[Tensor]) -> None:
        # By `data`: a BatchNorm's backward pass, which may come later, holds its statistics; in training it uses none.
        self._buffers = [buffer.data for buffer in buffers if buffer.is_floating_point()]
        self._before = [buffer.clone() for buffer in self._buffers]
        self._after = [buffer.clone() for buffer in self._buffers]

    def keep(self) -> None:
        """Copy them, after a forward pass."""
        self._before, self._after = self._after, self._before
        _copy(self._after, self._buffers)

    def take_back(self) -> None:
        """Make them what they were before the last forward pass whose :meth:`keep` was called."""
        _copy(self._buffers, self._before)
        _copy(self._after, self._before)


@torch.no_grad()
def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    if targets:
        torch._foreach_copy_(targets, sources)  # a few kernels for all of them


def _rounded(limit: float, dtype: torch.dtype) -> float:
    """``limit`` as the device compares with it; the largest finite number where there is no limit."""
    return torch.tensor(limit, dtype=dtype).clamp(max=torch.finfo(dtype).max).item()


def _explained(last: _Loss, value: float) -> str:
    figures = ", ".join(f"{name} {float(number):.4g}" for name, number in last.statistics.items())
    above = f", above {last.limit:.4g}, where a spike begins" if math.isfinite(value) else ""
    return f"the loss is {value:.6g} at step {last.step}{above} ({figures}); no weight was updated by it"


def _told_count(number: int, most: int) -> str:
    return f"skipped of the last {COUNTED_STEPS:,} steps: {number}, of {most} that may be"


_ADVICE = (
    "Look at the last reports: a scale that ran up or a median target angle that stays at 1.57 asks for smaller "
    "learning rates, a longer warm-up or a smaller largest scale; a sudden jump asks for a look at the images of that "
    "step"
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
