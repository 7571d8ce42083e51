"""Training that diverged: what is said, and what is refused."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from partial_fc.classifier import ShardedClassifier


class TrainingDiverged(RuntimeError):  # noqa: N818  # the name says what happened, as StopIteration's does
    """The loss, or a weight about to be saved, is not finite. Raised on all ranks at the same step."""


def refuse_divergence(loss: Tensor, step: int, head: ShardedClassifier) -> None:
    """Raise TrainingDiverged unless the loss is finite, with the figures to look at. Reads the loss on the host."""
    if bool(torch.isfinite(loss)):
        return
    head.refuse_bad_labels()
    figures = ", ".join(f"{name} {float(value):.4g}" for name, value in head.statistics.items())
    raise TrainingDiverged(
        f"the loss is {loss.item()} at step {step} ({figures}); no weight was updated by it. Look at the last lines of "
        "metrics.jsonl: a scale that ran up or a median target angle that stays at 1.57 asks for smaller learning "
        "rates (optimizer.learning_rate, classifier.learning_rate), a longer schedule.warmup_epochs or a smaller "
        "objective.max_scale; a sudden jump asks for a look at the images of that step"
    )


def refuse_spoilt_weights(backbone: nn.Module, head: ShardedClassifier, step: int) -> None:
    """Raise TrainingDiverged on all ranks when a weight on any of them is not finite: never save such a model.

    A finite loss can have a gradient that is not. One all-reduce of a number.
    """
    spoilt = torch.stack([(~torch.isfinite(p.detach())).sum() for p in (*backbone.parameters(), head.weight)]).sum()
    number = int(head.world.all_sum(spoilt))
    if number:
        raise TrainingDiverged(
            f"{number} weights are not finite after step {step}: the model is not saved, an earlier checkpoint stays "
            "the last. The loss was finite and its gradient was not: look for images without any content in the last "
            "batches, and try smaller learning rates or optimizer.clip_norm"
        )
