"""Where the reports of a run go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import partial_fc
from launch.assembly.run_folder import RunFolder
from launch.assembly.targets import listed_targets
from launch.config.run import ReportConfig
from partial_fc import World
from partial_fc.checkpoint.layout import CheckpointFolder
from partial_fc.checkpoint.saving import Saver
from partial_fc.checkpoint.writing import Saved
from partial_fc.reports.endpoint import EndpointTLS
from partial_fc.reports.json_lines import JsonLinesSink
from partial_fc.reports.prometheus import PrometheusSink
from partial_fc.reports.step_report import Sink
from partial_fc.reports.tensorboard import TensorBoardSink
from partial_fc.reports.terminal import TerminalSink
from partial_fc.world import local_rank, restarts


@contextmanager
def open_sinks(
    section: ReportConfig,
    folder: RunFolder,
    world: World,
    *,
    objective: str,
    num_classes: int,
    saver: Saver,
    resumed: Path | None = None,
) -> Iterator[list[Sink]]:
    """What shows the reports, closed at the end: on every rank a Prometheus endpoint, the others on rank 0.

    The endpoint of rank 0 shows the checkpoints that ``saver`` finishes, and before them the time of ``resumed``, the
    one that the run goes on from. Without ``resumed`` an earlier run in ``folder`` is set aside once all ranks have
    their endpoints. Rank 0 lists them for Prometheus (:func:`listed_targets`). One barrier.
    """
    with ExitStack() as stack:
        endpoints: list[PrometheusSink] = []
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
                tls=EndpointTLS(**dict(section.tls)) if section.tls is not None else None,
                restarts=restarts(),
                last_checkpoint_timestamp_seconds=_timestamp_seconds(resumed) if resumed and world.rank == 0 else None,
            )
            _show_saves(endpoint, saver)
            endpoints.append(stack.enter_context(closing(endpoint)))
        world.barrier()  # no rank's port is taken: nothing refuses the start any more
        files = (
            [stack.enter_context(closing(sink)) for sink in _files(section, folder, resumed)] if not world.rank else []
        )
        for endpoint in endpoints:
            path = folder.targets if section.targets is None else section.targets / f"{folder.path.name}.json"
            device = saver.state.head.weight.device
            stack.enter_context(listed_targets(path, section, endpoint.port, world, device))
        yield [*files, *endpoints]


def _files(section: ReportConfig, folder: RunFolder, resumed: Path | None) -> Iterator[Sink]:
    """What rank 0 shows and writes, in a folder of which an earlier run was set aside."""
    if resumed is None and (aside := folder.set_aside()) is not None:
        print(f"the earlier run in {folder.path} is kept as {aside}", flush=True)
    folder.path.mkdir(parents=True, exist_ok=True)
    yield TerminalSink()
    yield JsonLinesSink(folder.metrics)
    if section.tensorboard:
        yield TensorBoardSink(folder.tensorboard)


def _show_saves(endpoint: PrometheusSink, saver: Saver) -> None:
    """Have ``endpoint`` told of each checkpoint that is whole, before those whom ``saver`` tells already."""
    others = saver.on_saved

    def tell(saved: Saved) -> None:
        endpoint.saved(
            timestamp_seconds=saved.timestamp_seconds,
            writing_seconds=saved.writing_seconds,
            pause_seconds=saved.pause_seconds,
        )
        others(saved)

    saver.on_saved = tell


def _timestamp_seconds(checkpoint: Path) -> float:
    """When the checkpoint was whole: its manifest is the last file written."""
    return CheckpointFolder(checkpoint).manifest_file.stat().st_mtime
