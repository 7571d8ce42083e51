"""From single steps to one StepReport per interval, without a device synchronisation per step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median_low

import torch
from torch import Tensor

from partial_fc.reports.instants import Instant, Span, duration_seconds, instant, peak_memory_bytes
from partial_fc.reports.step_report import Phase, RankFigures, StepReport
from partial_fc.reports.time_spent import TimeSpent
from partial_fc.reports.traffic import Traffic


class Meter:
    """The figures of the steps since the last report, gathered without making the host wait for the device.

    ``observe`` once per step, ``report`` once per interval, ``start`` before the first step and after every pause
    that is not training (evaluation, a checkpoint). Figures may be tensors on any device: they are added up there,
    and only ``report`` reads them. On a CUDA device steps are timed by events in the stream, as the host is ahead.
    ``stage``, which each report names, is set when a stage of the run begins.
    ``begin(phase)`` parts a step: all until the next phase, or the step's end, belongs to it. What lies between a
    step's ``update`` and the next one's ``head``, a rank does by itself. All ranks take as long for a step as the
    slowest of them, so this part alone tells which rank that is. ``gather(own_step_seconds, data_wait_seconds)``, the
    second being the interval's, gives the figures of all ranks; ``report`` calls it on every rank at the same step,
    so it may talk. ``traffic`` is that of this rank's collectives; ``spent`` the account of the run's time, if any.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        images_per_epoch: int,
        step: int = 0,
        images: int = 0,
        device: torch.device | None = None,
        gather: Callable[[float, float], RankFigures] = lambda own, waited: RankFigures((own,), waited, 0, 0),
        traffic: Traffic | None = None,
        spent: TimeSpent | None = None,
    ) -> None:
        self._total_steps, self._images_per_epoch = total_steps, images_per_epoch
        self._step, self._images = step, images
        self._gather, self._bad_images_of_rank = gather, 0
        self._device = device or torch.device("cpu")
        self._traffic, self._carried_bytes, self._spent = traffic or Traffic(), 0, spent
        self.stage = 1
        self._slow_steps = 1  # at the start: the first compiles, and finds every cache cold
        self._forget()
        self.start()

    def start(self) -> None:
        """Time the next step from now."""
        if self._spent is not None:
            self._spent.spend("start")
        self._mark = instant(self._device)
        self._left: Instant | None = self._mark
        self._phase: Phase | None = None
        self._traffic.taken()

    def begin(self, phase: Phase) -> None:
        """The step's next phase begins: ``forward``, ``head``, ``backward`` or ``update``."""
        now = instant(self._device)
        self._end_phase(now)
        self._phase, self._phase_mark = phase, now
        if phase == "forward" and self._device.type == "cuda":
            self._data_spans.append((self._mark, now))
        if phase == "head" and self._left is not None:
            self._own_spans.append((self._left, now))
            self._left = None
        elif phase == "update":
            self._left = now

    def _end_phase(self, now: Instant) -> None:
        if self._phase is not None:
            self._phase_spans[self._phase].append((self._phase_mark, now))
        self._phase = None

    def observe(
        self,
        *,
        images: int,
        loss: Tensor | float,
        data_wait_seconds: float,
        scale: Tensor | float | None = None,
        median_target_angle_radians: Tensor | float | None = None,
        gradient_norm: Tensor | float | None = None,
        extra: Mapping[str, Tensor | float] | None = None,
    ) -> None:
        """Take the figures of the step that ends now; ``images`` is the global batch."""
        mark = instant(self._device)
        self._end_phase(mark)
        self._spans.append((self._mark, mark))
        self._mark = mark
        self._waits.append(self._traffic.taken())
        if self._spent is not None and len(self._spans) <= self._slow_steps:
            self._spent.spend("start")
        self._data_waits_seconds.append(data_wait_seconds)
        self._interval_images += images
        known = {
            "loss": loss,
            "scale": scale,
            "median_target_angle_radians": median_target_angle_radians,
            "gradient_norm": gradient_norm,
        }
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
        # The host is ahead of a GPU: what it waits for data, the device need not notice.
        data_waits = tuple(map(duration_seconds, self._data_spans)) or tuple(self._data_waits_seconds)
        durations = tuple(map(duration_seconds, self._spans))
        step_seconds = max(sum(durations) / steps, 1e-9)  # a fake or coarse clock may stand still
        # What is left is timed by the steps that are like it, where there are such.
        slow, self._slow_steps = self._slow_steps, 0
        usual = durations[slow:] or durations
        own = [duration_seconds(span) for span in self._own_spans[slow:]]
        self._step += steps
        self._images += self._interval_images
        own_step_seconds = sum(own) / max(len(own), 1)
        waited_seconds = sum(data_waits[slow:])
        ranks, earlier = self._gather(own_step_seconds, waited_seconds), self._bad_images_of_rank
        self._bad_images_of_rank, slowest = ranks.bad_images_of_rank, max(ranks.own_step_seconds)
        carried_bytes, self._carried_bytes = self._traffic.total_bytes - self._carried_bytes, self._traffic.total_bytes
        if self._spent is not None:
            self._spent.spend("training")
            self._spent.move(ranks.longest_data_wait_seconds, "training", "data")
        report = StepReport(
            step=self._step,
            total_steps=self._total_steps,
            epoch=self._images / self._images_per_epoch,
            images=self._images,
            interval_steps=steps,
            interval_images=self._interval_images,
            images_per_second=self._interval_images / (steps * step_seconds),
            step_seconds=step_seconds,
            data_wait_seconds=sum(data_waits) / steps,
            loss=means.pop("loss"),
            scale=means.pop("scale", None),
            median_target_angle_radians=means.pop("median_target_angle_radians", None),
            gradient_norm=means.pop("gradient_norm", None),
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
            interval_collective_bytes_of_rank=carried_bytes,
            peak_memory_bytes=peak_memory_bytes(self._device),
            seconds_spent={} if self._spent is None else dict(self._spent.seconds),
            goodput_ratio=None if self._spent is None else self._spent.goodput,
            extra=means,
            step_seconds_of_steps=durations,
            data_wait_seconds_of_steps=data_waits,
            phase_seconds_of_steps=self._phase_seconds(),
        )
        self._forget()
        return report

    def _phase_seconds(self) -> dict[Phase, tuple[float, ...]]:
        """Of the steps that had it, each phase's; and of all, how long they waited for collectives."""
        found = {phase: tuple(map(duration_seconds, spans)) for phase, spans in self._phase_spans.items()}
        found["collective"] = tuple(sum(map(duration_seconds, waits)) for waits in self._waits)
        return found

    def _forget(self) -> None:
        self._spans: list[Span] = []
        self._own_spans: list[Span] = []
        self._data_spans: list[Span] = []
        self._phase_spans: dict[Phase, list[Span]] = {"forward": [], "head": [], "backward": [], "update": []}
        self._waits: list[list[Span]] = []
        self._data_waits_seconds: list[float] = []
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
