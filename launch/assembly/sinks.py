"""Where the reports of a run go."""

from __future__ import annotations

from collections.abc import Iterator

import partial_fc
from launch.assembly.run_folder import RunFolder
from launch.config.run import Config
from partial_fc import World
from partial_fc.reports.json_lines import JsonLinesSink
from partial_fc.reports.prometheus import PrometheusSink
from partial_fc.reports.step_report import Sink
from partial_fc.reports.terminal import TerminalSink
from partial_fc.world import local_rank


def sinks(config: Config, world: World, num_classes: int) -> Iterator[Sink]:
    """Screen and ``metrics.jsonl`` on rank 0; a Prometheus endpoint on every rank. Each is opened when asked for."""
    folder = RunFolder(config.run_dir)
    folder.path.mkdir(parents=True, exist_ok=True)
    if world.rank == 0:
        yield TerminalSink()
        yield JsonLinesSink(folder.metrics)
    if config.report.prometheus:
        yield PrometheusSink(
            run=config.run_dir.name,
            version=partial_fc.__version__,
            objective=config.objective.name,
            num_classes=num_classes,
            world_size=world.size,
            local_rank=local_rank(),
            address=config.report.address,
            port=config.report.port,
        )
