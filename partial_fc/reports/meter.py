"""From single steps to one StepReport per interval, without a device synchronisation per step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median_low

import torch
from torch import Tensor

from partial_fc.reports.step_report import RankFigures, StepReport


class Meter:
    """The figures of the steps since the last report, gathered without making the host wait for the device.

    ``observe`` once per step, ``report`` once per interval, ``start`` before the first step and after every pause
    that is not training (evaluation, a checkpoint). Figures may be tensors on any device: they are added up there,
    and only ``report`` reads them. On a CUDA device steps are timed by events in the stream, as the host is ahead.
    ``stage``, which each report names, is set when a stage of the run begins.
    ``arrive`` before the first collective of a step and ``leave`` after its last: what lies between a step's ``leave``
    and the next one's ``arrive``, a rank does by itself. All ranks take as long for a step as the slowest of them, so
    this part alone tells which rank that is. ``gather(own_step_seconds)`` gives the figures of all ranks; ``report``
    calls it on every rank at the same step, so it may talk.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        images_per_epoch: int,
        step: int = 0,
        images: int = 0,
        device: torch.device | None = None,
        gather: Callable[[float], RankFigures] = lambda own_step_seconds: RankFigures((own_step_seconds,), 0, 0),
    ) -> None:
        self._total_steps, self._images_per_epoch = total_steps, images_per_epoch
        self._step, self._images = step, images
        self._gather, self._bad_images_of_rank = gather, 0
        self._device = device or torch.device("cpu")
        self.stage = 1
        self._slow_steps = 1  # at the start: the first compiles, and finds every cache cold
        self._forget()
        self.start()

    def start(self) -> None:
        """Time the next step from now."""
        self._mark = _now(self._device)
        self._left: _Instant | None = self._mark

    def arrive(self) -> None:
        """The first collective of a step comes next."""
        if self._left is not None:
            self._own_spans.append((self._left, _now(self._device)))
        self._left = None

    def leave(self) -> None:
        """The last collective of a step has ended."""
        self._left = _now(self._device)

    def observe(
        self,
        *,
        images: int,
        loss: Tensor | float,
        data_wait_seconds: float,
        scale: Tensor | float | None = None,
        median_target_angle_radians: Tensor | float | None = None,
        extra: Mapping[str, Tensor | float] | None = None,
    ) -> None:
        """Take the figures of the step that ends now; ``images`` is the global batch."""
        mark = _now(self._device)
        self._spans.append((self._mark, mark))
        self._mark = mark
        self._waits_seconds.append(data_wait_seconds)
        self._interval_images += images
        known = {"loss": loss, "scale": scale, "median_target_angle_radians": median_target_angle_radians}
        for name, value in (*known.items(), *(extra or {}).items()):
            if value is not None:
                self._sums.add(name, value)

    def report(self, *, learning_rate: float, row_learning_rate: float, skipped_steps: int = 0) -> StepReport:
        """The report of the steps observed since the last one, which is then forgotten; waits for the device.

        ValueError if there was no step; passes on what ``gather`` raises.
        """
        steps = len(self._spans)
        if not steps:
            raise ValueError("a report needs at least one observed step since the last report, got none")
        means = self._sums.means()
        durations = tuple(_seconds(*span) for span in self._spans)
        step_seconds = max(sum(durations) / steps, 1e-9)  # a fake or coarse clock may stand still
        # What is left is timed by the steps that are like it, where there are such.
        usual = durations[self._slow_steps :] or durations
        own = [_seconds(*span) for span in self._own_spans[self._slow_steps :]]
        self._slow_steps = 0
        self._step += steps
        self._images += self._interval_images
        own_step_seconds = sum(own) / max(len(own), 1)
        ranks, earlier = self._gather(own_step_seconds), self._bad_images_of_rank
        self._bad_images_of_rank, slowest = ranks.bad_images_of_rank, max(ranks.own_step_seconds)
        report = StepReport(
            step=self._step,
            total_steps=self._total_steps,
            epoch=self._images / self._images_per_epoch,
            images=self._images,
            interval_steps=steps,
            interval_images=self._interval_images,
            images_per_second=self._interval_images / (steps * step_seconds),
            step_seconds=step_seconds,
            data_wait_seconds=sum(self._waits_seconds) / steps,
            loss=means.pop("loss"),
            scale=means.pop("scale", None),
            median_target_angle_radians=means.pop("median_target_angle_radians", None),
            learning_rate=learning_rate,
            row_learning_rate=row_learning_rate,
            seconds_left=(self._total_steps - self._step) * sum(usual) / len(usual),
            timestamp_seconds=time.time(),
            skipped_steps=skipped_steps,
            stage=self.stage,
            bad_images=ranks.bad_images,
            interval_bad_images_of_rank=self._bad_images_of_rank - earlier,
            own_step_seconds=own_step_seconds,
            slowest_rank=ranks.own_step_seconds.index(slowest),
            slowest_rank_lag_seconds=slowest - median_low(ranks.own_step_seconds),
            extra=means,
            step_seconds_of_steps=durations,
            data_wait_seconds_of_steps=tuple(self._waits_seconds),
        )
        self._forget()
        return report

    def _forget(self) -> None:
        self._spans: list[tuple[_Instant, _Instant]] = []
        self._own_spans: list[tuple[_Instant, _Instant]] = []
        self._waits_seconds: list[float] = []
        self._interval_images = 0
        self._sums = _Sums()


class _Sums:
    """Running sums by name. Not lists of tensors: a buffer such as AdaCos' scale changes in place after its step."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: Tensor | float) -> None:
        if name not in self._sums:
            device = value.device if isinstance(value, Tensor) else None
            self._sums[name] = torch.zeros((), dtype=torch.float64, device=device)
        self._sums[name] += value.detach() if isinstance(value, Tensor) else value
        self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}


_Instant = float | torch.cuda.Event


def _now(device: torch.device) -> _Instant:
    if device.type != "cuda":
        return time.perf_counter()
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds(begin: _Instant, end: _Instant) -> float:
    if isinstance(begin, float) or isinstance(end, float):
        return float(end) - float(begin)  # type: ignore[arg-type]
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000.0
