"""THE LOOP: one function. Everything it uses arrives as an argument; it knows no file, no screen and no server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from partial_fc.classifier import ShardedClassifier
from partial_fc.divergence import STRICT, LossCheck, LossCourse, Tolerance
from partial_fc.reports.meter import Meter
from partial_fc.reports.step_report import Sink


@runtime_checkable
class Batch(Protocol):
    """One rank's part of a global batch."""

    @property
    def images(self) -> Tensor:
        """``(n, 3, H, W)``, normalised."""

    @property
    def labels(self) -> Tensor:
        """``(n,)`` int64."""


def train(
    steps: range,
    *,
    batches: Iterator[Batch],
    counts: Sequence[int],
    backbone: nn.Module,
    head: ShardedClassifier,
    optimizer: torch.optim.Optimizer,
    set_rates: Callable[[int], tuple[float, float]],
    autocast: Callable[[], AbstractContextManager[object]],
    clip_norm: float | None,
    meter: Meter,
    sinks: Sequence[Sink],
    report_every: int,
    save: Callable[[int], None],
    save_every: int | None,
    is_save_due: bool = False,
    evaluate: Callable[[int], None] = lambda done: None,
    evaluate_every: int | None = None,
    stops: Callable[[int], bool] = lambda done: False,
    course: LossCourse | None = None,
    tolerance: Tolerance = STRICT,
    told: Callable[[str], None] = lambda text: None,
) -> int:
    """Train for ``steps`` and return how many steps of the run are done.

    ``set_rates(step)`` sets and returns the learning rates of backbone and rows.
    ``counts`` are the ranks' shares of every global batch: known beforehand, so that no step asks for them.

    A loss that is not finite, or that jumped, updates no weight. Its step is skipped and ``told``; more of them than
    ``tolerance`` allows raise TrainingDiverged, on every rank alike: at once on a CPU, a step later on a GPU, for which
    no step waits before its update (:class:`partial_fc.divergence.LossCheck`). ``course`` is what the losses before
    were like; it goes on here.
    A report is written every ``report_every`` steps and after the last one. ``save(done)`` is called every
    ``save_every`` steps, at once where ``is_save_due``, later where the last step was skipped, and never after the last
    one: that is the caller's.
    So it is with ``evaluate(done)``, every ``evaluate_every`` steps, on all ranks; it may save as well.
    ``stops(done)`` is called after each step and each evaluation, and ends the training where it is True, on all ranks
    alike.
    """
    loss_check = LossCheck(backbone, head, optimizer, course, tolerance, told)
    meter.start()
    for step in steps:
        rates, gradient_norm = set_rates(step), None
        waiting = time.perf_counter()
        batch = next(batches)
        waited_seconds = time.perf_counter() - waiting
        meter.begin("forward")
        with autocast():
            embeddings = backbone(batch.images)
        if embeddings.requires_grad:  # the hook is called when their gradient is there: the head's part is over
            embeddings.register_hook(lambda _: meter.begin("backward"))
        meter.begin("head")
        loss = head(embeddings.float(), batch.labels, counts)
        if (minimised := loss_check.to_minimise(loss, step)) is not None:
            minimised.backward()  # type: ignore[no-untyped-call]
            meter.begin("update")
            if clip_norm is not None:
                gradient_norm = nn.utils.clip_grad_norm_(backbone.parameters(), clip_norm)
            optimizer.step()
            optimizer.zero_grad()
        del embeddings, loss, minimised  # of a skipped step they hold all that its forward pass kept
        figures = dict(head.statistics)
        meter.observe(
            images=sum(counts),
            loss=figures.pop("loss"),
            data_wait_seconds=waited_seconds,
            scale=figures.pop("scale", None),
            median_target_angle_radians=figures.pop("median_target_angle"),
            gradient_norm=gradient_norm,
            extra=figures,
        )
        done = step + 1
        if done % report_every == 0 or done == steps.stop:
            loss_check.settle()
            report = meter.report(
                learning_rate=rates[0], row_learning_rate=rates[1], skipped_steps=loss_check.skipped_steps
            )
            for sink in sinks:
                sink.write(report)
        is_save_due = is_save_due or (save_every is not None and done % save_every == 0)
        if is_save_due and done < steps.stop and loss_check.is_good():
            save(done)
            is_save_due = False
            meter.start()
        if stops(done):
            loss_check.settle()
            return done
        if evaluate_every is not None and done % evaluate_every == 0 and done < steps.stop:
            loss_check.settle()
            evaluate(done)
            meter.start()
            if stops(done):  # told meanwhile
                return done
    return steps.stop
