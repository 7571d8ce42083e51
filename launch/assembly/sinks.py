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
    section: ReportConfig, folder: RunFolder, world: World, *, objective: str, num_classes: int, goes_on: bool = False
) -> Iterator[list[Sink]]:
    """What shows the reports, closed at the end: on every rank a Prometheus endpoint, the others on rank 0.

    An earlier run in ``folder`` is set aside once all ranks have their endpoints, unless this one ``goes_on`` with it.
    One barrier.
    """
    with ExitStack() as stack:
        endpoints: list[Sink] = []
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
            endpoints.append(stack.enter_context(closing(endpoint)))
        world.barrier()  # no rank's port is taken: nothing refuses the start any more
        if world.rank != 0:
            yield endpoints
            return
        if not goes_on and (aside := folder.set_aside()) is not None:
            print(f"the earlier run in {folder.path} is kept as {aside}", flush=True)
        folder.path.mkdir(parents=True, exist_ok=True)
        files: list[Sink] = [
            stack.enter_context(closing(sink)) for sink in (TerminalSink(), JsonLinesSink(folder.metrics))
        ]
        if section.tensorboard:
            files.append(stack.enter_context(closing(TensorBoardSink(folder.tensorboard))))
        yield [*files, *endpoints]
