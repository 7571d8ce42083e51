"""Where the reports of a run go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import partial_fc
from launch.assembly.run_folder import RunFolder
from launch.config.run import ReportConfig
from partial_fc import World
from partial_fc.reports.json_lines import JsonLinesSink
from partial_fc.reports.prometheus import PrometheusSink
from partial_fc.reports.step_report import Sink
from partial_fc.reports.tensorboard import TensorBoardSink
from partial_fc.reports.terminal import TerminalSink
from partial_fc.world import local_rank


@contextmanager
def open_sinks(
    section: ReportConfig, folder: RunFolder, world: World, *, objective: str, num_classes: int
) -> Iterator[list[Sink]]:
    """What shows the reports, closed at the end: on every rank a Prometheus endpoint, the others on rank 0."""
    folder.path.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        sinks: list[Sink] = []
        if world.rank == 0:
            sinks += [stack.enter_context(closing(sink)) for sink in (TerminalSink(), JsonLinesSink(folder.metrics))]
        if section.prometheus:
            endpoint = PrometheusSink(
                run=folder.path.name,
                version=partial_fc.__version__,
                objective=objective,
                num_classes=num_classes,
                world_size=world.size,
                local_rank=local_rank(),
                address=section.address,
                port=section.port,
            )
            sinks.append(stack.enter_context(closing(endpoint)))
        if section.tensorboard and world.rank == 0:
            sinks.append(stack.enter_context(closing(TensorBoardSink(folder.tensorboard))))
        yield sinks
