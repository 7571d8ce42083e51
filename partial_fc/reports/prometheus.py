"""The run's figures for Prometheus: one endpoint per rank, in a registry of its own.

Names and types follow Prometheus' own conventions: one prefix, base units, counters that end in ``_total``, no figure
of a single class. ``run`` is the one label of a metric; what tells ranks apart (node, rank) belongs to the scrape
target, see docs/monitoring.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from partial_fc.reports.endpoint import EndpointTLS, started_server
from partial_fc.reports.step_report import StepReport

STEP_BUCKETS_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
PHASE_BUCKETS_SECONDS = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
WAIT_BUCKETS_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)
CHECKPOINT_BUCKETS_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
PHASES = {
    "forward": "Part of a step in the forward pass of the backbone.",
    "head": "Part of a step in the head, both its passes: cosines, loss, class rows.",
    "backward": "Part of a step in the backward pass of the backbone, gradients summed over the ranks.",
    "update": "Part of a step that updates the weights of the backbone.",
    "collective": "Part of a step that this rank stood still for collectives, inside the other parts.",
}
PAUSE_BUCKETS_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0)

_GAUGES: dict[str, tuple[str, Callable[[StepReport], int | float | None]]] = {
    "step": ("Steps done since the start of the run, over all its processes.", lambda r: r.step),
    "run_steps": ("Steps that the whole run will have.", lambda r: r.total_steps),
    "stage": ("Stage of the run's schedule, from 1.", lambda r: r.stage),
    "epoch": ("Passes over the data since the start of the run.", lambda r: r.epoch),
    "loss": ("Loss of the global batch, mean over the last interval.", lambda r: r.loss),
    "scale": ("Scale s of the cosines, mean over the last interval.", lambda r: r.scale),
    "median_target_angle_radians": (
        "Median angle between an embedding and its class centre, mean over the last interval.",
        lambda r: r.median_target_angle_radians,
    ),
    "gradient_norm": (
        "Norm of the backbone's gradient before it is clipped, mean over the last interval.",
        lambda r: r.gradient_norm,
    ),
    "learning_rate": ("Learning rate of the backbone.", lambda r: r.learning_rate),
    "row_learning_rate": ("Learning rate of the class rows.", lambda r: r.row_learning_rate),
    "own_step_seconds": (
        "Part of a step that this rank needs by itself, held up by no other, mean over the last interval.",
        lambda r: r.own_step_seconds,
    ),
    "slowest_rank": ("Rank that needs most time by itself; the same on every rank.", lambda r: r.slowest_rank),
    "slowest_rank_lag_seconds": (
        "What the slowest rank needs more than the median of all ranks: about what the others wait for it in a step.",
        lambda r: r.slowest_rank_lag_seconds,
    ),
    "remaining_seconds": ("Time the remaining steps will take at the last interval's pace.", lambda r: r.seconds_left),
    "estimated_end_timestamp_seconds": (
        "When the training will end at the last interval's pace, since 1970.",
        lambda r: r.timestamp_seconds + r.seconds_left,
    ),
    "peak_memory_bytes": (
        "The most memory the process has had: allocated on its GPU, or resident on the host.",
        lambda r: r.peak_memory_bytes,
    ),
    "goodput_ratio": (
        "Share of the run's time that was spent on training, since its first start.",
        lambda r: r.goodput_ratio,
    ),
    "last_step_timestamp_seconds": ("When the last interval ended, since 1970.", lambda r: r.timestamp_seconds),
}

_GAUGES_OF_NO_REPORT = {
    "last_checkpoint_timestamp_seconds": "When the last checkpoint of the run was whole, since 1970; on rank 0.",
    "restarts": "How often torchrun has started the ranks of this node again.",
    "evaluating": "1 while the training waits for an evaluation on held-out sets, which reports no step; else 0.",
}


class PrometheusSink:
    """Reports as metrics at ``http://address:port/metrics``, where ``port`` is the first rank's of this host.

    Rank ``local_rank`` listens at ``port + local_rank``, or anywhere if ``port`` is 0; ``.port`` says where. Without
    ``tls`` everybody is answered in the clear, so that ``address`` is this host alone unless the caller says otherwise.

    Counters count this process' own work from 0: ``images_total`` this rank's share, so that the sum over ranks is
    the global rate and a resumed run does not look like a jump of a million images. A gauge shows nothing until
    there is a value: 0 would be a lie, and a timestamp of 0 an alarm.

    Rank 0 alone is told of checkpoints, by :meth:`saved`. ``last_checkpoint_timestamp_seconds`` says when the one was
    whole that the run goes on from; ``restarts`` how often the ranks of this node were started again.

    EndpointError if the port cannot be had or a file of ``tls`` cannot be used.
    """

    def __init__(
        self,
        *,
        run: str,
        version: str,
        objective: str,
        num_classes: int,
        world_size: int,
        local_rank: int = 0,
        address: str = "127.0.0.1",
        port: int = 9410,
        tls: EndpointTLS | None = None,
        restarts: int = 0,
        last_checkpoint_timestamp_seconds: float | None = None,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a switch of the whole process, there is no other
        self._run, self._world_size = run, world_size
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._images = self._counter("images", "Images this rank has trained on since its process started.")
        self._bad_images = self._counter(
            "bad_images", "Images that this rank could not use and replaced by others, each time one came up."
        )
        self._skipped_steps = self._counter(
            "skipped_steps", "Steps whose loss was no good, so that no weight was updated; the same on every rank."
        )
        self._skipped_before = 0
        self._steps = self._counter("steps", "Steps since the process started; the same on every rank.")
        self._step_seconds = self._histogram(
            "step_seconds", "Duration of a step, the wait for its data included.", STEP_BUCKETS_SECONDS
        )
        self._data_wait_seconds = self._histogram(
            "data_wait_seconds", "Part of a step spent waiting for its data.", WAIT_BUCKETS_SECONDS
        )
        self._phases = {
            phase: self._histogram(f"{phase}_seconds", text, PHASE_BUCKETS_SECONDS) for phase, text in PHASES.items()
        }
        self._collective_bytes = self._counter(
            "collective_bytes", "Bytes that this rank's collectives gathered, summed or scattered."
        )
        self._spent = Gauge(
            "spent_seconds",
            "What the run's time was spent on, since its first start; nearly the same on every rank.",
            ["run", "cause"],
            namespace="partial_fc",
            registry=self._registry,
        )
        self._evaluation = Gauge(
            "evaluation",
            "A measure of the last evaluation on a held-out set; on rank 0.",
            ["run", "set", "measure"],
            namespace="partial_fc",
            registry=self._registry,
        )
        self._checkpoint_seconds = self._histogram(
            "checkpoint_seconds",
            "Duration of writing a checkpoint, from the end of the copy to its new name; on rank 0.",
            CHECKPOINT_BUCKETS_SECONDS,
        )
        self._checkpoint_pause_seconds = self._histogram(
            "checkpoint_pause_seconds", "How long training waited for a checkpoint; on rank 0.", PAUSE_BUCKETS_SECONDS
        )
        texts = {name: text for name, (text, _) in _GAUGES.items()} | _GAUGES_OF_NO_REPORT
        self._gauges = {name: self._gauge(name, text) for name, text in texts.items()}
        self._show("restarts", restarts)
        self._show("evaluating", 0)
        self._show("last_checkpoint_timestamp_seconds", last_checkpoint_timestamp_seconds)
        self._info(version=version, objective=objective, num_classes=str(num_classes), world_size=str(world_size))
        self._server, self._thread = started_server(self._registry, address, port and port + local_rank, tls)
        self.port: int = self._server.server_port

    def write(self, report: StepReport) -> None:
        """Show the report from the next scrape on; waits for nobody."""
        self._images.inc(report.interval_images / self._world_size)
        self._bad_images.inc(report.interval_bad_images_of_rank)
        self._steps.inc(report.interval_steps)
        self._skipped_steps.inc(report.skipped_steps - self._skipped_before)
        self._skipped_before = report.skipped_steps
        for seconds in report.step_seconds_of_steps or (report.step_seconds,) * report.interval_steps:
            self._step_seconds.observe(seconds)
        for seconds in report.data_wait_seconds_of_steps or (report.data_wait_seconds,) * report.interval_steps:
            self._data_wait_seconds.observe(seconds)
        for phase, durations_seconds in report.phase_seconds_of_steps.items():
            for seconds in durations_seconds:
                self._phases[phase].observe(seconds)
        self._collective_bytes.inc(report.interval_collective_bytes_of_rank)
        for cause, seconds in report.seconds_spent.items():
            self._spent.labels(self._run, cause).set(seconds)
        for name, (_, figure) in _GAUGES.items():
            self._show(name, figure(report))
        for name in self._gauges.keys() - {*_GAUGES, *_GAUGES_OF_NO_REPORT, *report.extra}:
            self._show(name, None)  # a figure of an earlier stage's objective: what it was last is no longer so
        for name, value in report.extra.items():
            if name not in self._gauges:
                self._gauges[name] = self._gauge(name, "A figure of the objective, mean over the last interval.")
            self._show(name, value)

    def saved(self, *, timestamp_seconds: float, writing_seconds: float, pause_seconds: float) -> None:
        """Show a checkpoint that was whole at ``timestamp_seconds``; from any thread, beside :meth:`write`."""
        self._checkpoint_seconds.observe(writing_seconds)
        self._checkpoint_pause_seconds.observe(pause_seconds)
        self._show("last_checkpoint_timestamp_seconds", timestamp_seconds)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Show, for the block, that the training waits for an evaluation."""
        self._show("evaluating", 1)
        try:
            yield
        finally:
            self._show("evaluating", 0)

    def evaluated(self, figures: Mapping[str, float]) -> None:
        """Show the measures of an evaluation, each by its name ``SET.MEASURE``."""
        for name, value in figures.items():
            set_name, _, measure = name.rpartition(".")
            self._evaluation.labels(self._run, set_name, measure).set(value)

    def close(self) -> None:
        """Stop listening and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _show(self, name: str, value: int | float | None) -> None:
        if value is None:
            self._gauges[name].clear()
        else:
            self._gauges[name].labels(self._run).set(value)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ["run"], namespace="partial_fc", registry=self._registry).labels(self._run)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        family = Histogram(name, text, ["run"], namespace="partial_fc", registry=self._registry, buckets=buckets)
        return family.labels(self._run)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["run"], namespace="partial_fc", registry=self._registry)

    def _info(self, **facts: str) -> None:
        family = Info("run", "What this run is.", ["run"], namespace="partial_fc", registry=self._registry)
        family.labels(self._run).info(facts)
