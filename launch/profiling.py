"""A profile of some steps of a training: ``partial-fc profile CONFIG``, one rank.

The steps are those of the training itself, from the last checkpoint in the run's folder on, or from its first step.
They are recorded by torch's profiler, and nothing of them is kept: no checkpoint, no metrics. A run that trains there
goes on undisturbed, but for the processors that both use.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile, record_function

from launch import assembly
from launch.assembly.run import Run
from launch.assembly.run_folder import RunFolder
from launch.command_line import profiling
from launch.config.loading import absolute, load_config
from launch.config.run import Config
from launch.errors import reported
from launch.processes import end_with, keep_freed_memory
from launch.resilience.resume import checkpoint_to_resume, run_facts
from launch.units import seconds_text
from launch.writing import naming, write_text
from partial_fc.loop import Batch, train
from partial_fc.reports.step_report import StepReport
from partial_fc.world import local_device, process_group

WARM_UP_STEPS = 3  # the first compiles, the next find their caches
LISTED_OPERATIONS = 20
LONGEST_NAME = 60
TEXT_COLUMNS = 120
PHASES = {
    "data_wait_seconds": "wait for data",
    "forward_seconds": "backbone, forward",
    "head_seconds": "head, forward and backward",
    "backward_seconds": "backbone, backward",
    "update_seconds": "backbone, update",
    "collective_seconds": "wait for collectives, inside the others",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one rank and return its exit code (see ``launch/errors.py``)."""
    parser = argparse.ArgumentParser(prog="python -m launch.profiling", description=__doc__)
    profiling.add_arguments(parser)
    arguments = parser.parse_args(argv)
    with reported() as outcome:
        run(arguments)
    return outcome.exit_code


def run(arguments: argparse.Namespace) -> None:
    """Record ``arguments.steps`` steps of the training that ``arguments.config`` describes."""
    keep_freed_memory()
    config = absolute(load_config(arguments.config, arguments.set))
    torch.manual_seed(config.seed)
    folder, device = RunFolder(config.run_dir), local_device()
    out = arguments.out.absolute() if arguments.out is not None else folder.profile
    source = assembly.open_training_data(config.data, config.seed)
    assembly.refuse_unfit_objectives(config, source.num_classes)
    identities_C = assembly.identities(config.data, source)
    backbone = assembly.backbone(config.backbone, config.data.image_size, config.backbone.weights)
    with process_group() as world:
        facts = run_facts(config, source, identities_C)
        resumed = checkpoint_to_resume(folder, config, facts, identities_C, world, device, tidies=False)
        parts = assembly.run(
            *(config, source, backbone, world, device), facts=facts, identities_C=identities_C, resumed=resumed
        )
        recorded, report = _recorded(config, parts, arguments.steps)
        _write_trace(recorded, out / f"trace-rank-{world.rank}.json.gz")
        world.barrier()
        if world.rank == 0:
            where = f"after step {parts.start_step + WARM_UP_STEPS:,}, rank 0 of {world.size}"
            _tell([_phases(report, where), _operations(recorded, report.interval_steps)], out)


def _recorded(config: Config, parts: Run, steps: int) -> tuple[profile, StepReport]:
    """The profile of ``steps`` steps, and their report; some steps before them are left out of both."""
    kept = _LastReport()
    first = parts.start_step + WARM_UP_STEPS
    _name("backbone, forward", parts.model)
    _name("head, forward", parts.head)

    def take(steps_taken: range) -> None:
        train(
            steps_taken,
            batches=_waited_for(parts.batches),
            counts=parts.counts,
            backbone=parts.model,
            head=parts.head,
            optimizer=parts.optimizer,
            set_rates=lambda step: parts.set_rates(min(step, parts.total_steps - 1)),
            autocast=parts.autocast,
            clip_norm=config.optimizer.clip_norm,
            meter=parts.meter,
            sinks=[kept],
            report_every=sys.maxsize,  # at the end alone
            save=lambda done: None,
            save_every=None,
        )

    take(range(parts.start_step, first))
    with profile(activities=[ProfilerActivity.CPU, *_on_gpus()]) as recorder:
        take(range(first, first + steps))
    return recorder, kept.report


class _LastReport:
    """A sink that keeps the last report."""

    report: StepReport

    def write(self, report: StepReport) -> None:
        self.report = report

    def close(self) -> None:
        pass


def _on_gpus() -> list[ProfilerActivity]:
    return [ProfilerActivity.CUDA] if torch.cuda.is_available() else []


def _name(name: str, module: nn.Module) -> None:
    """Have the forward passes of ``module`` stand in the trace under ``name``."""
    passes: list[record_function] = []

    def begin(*_: object) -> None:
        passes.append(record_function(name))
        passes[-1].__enter__()  # type: ignore[no-untyped-call]

    def end(*_: object) -> None:
        passes.pop().__exit__(None, None, None)

    module.register_forward_pre_hook(begin)
    module.register_forward_hook(end)


def _waited_for(batches: Iterator[Batch]) -> Iterator[Batch]:
    while True:
        with record_function("wait for data"):
            batch = next(batches)
        yield batch


def _write_trace(recorded: profile, path: Path) -> None:
    """The trace as Chrome and Perfetto open it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        recorded.export_chrome_trace(str(path))


def _phases(report: StepReport, where: str) -> Table:
    """Where the time of a step goes."""
    table = _table(f"one step, mean of {report.interval_steps} {where}", "phase", "time", "share")
    for name, seconds in {"data_wait_seconds": report.data_wait_seconds, **report.phase_seconds()}.items():
        table.add_row(PHASES[name], seconds_text(seconds), f"{100 * seconds / report.step_seconds:.1f} %")
    table.add_row("the whole step", seconds_text(report.step_seconds), "")
    return table


def _operations(recorded: profile, steps: int) -> Table:
    """The operations that take most time by themselves, those within them left out: on the GPU where there is one."""
    events = recorded.key_averages()
    if _on_gpus():  # where the operation that starts a kernel, and the names given above, count its time once more
        kernels = [each for each in events if each.device_type != DeviceType.CPU and not each.is_user_annotation]
        found = [(event.self_device_time_total / 1e6 / steps, event) for event in kernels]
    else:
        found = [(event.self_cpu_time_total / 1e6 / steps, event) for event in events]
    total = sum(seconds for seconds, _ in found)
    table = _table(f"the {LISTED_OPERATIONS} operations that take most of it", "operation", "time", "share", "calls")
    for seconds, event in sorted(found, key=lambda each: -each[0])[:LISTED_OPERATIONS]:
        share = f"{100 * seconds / max(total, 1e-9):.1f} %"
        table.add_row(event.key[:LONGEST_NAME], seconds_text(seconds), share, f"{event.count / steps:g}")
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title)
    table.add_column(first)
    for each in others:
        table.add_column(each, justify="right")
    return table


def _tell(tables: Sequence[Table], out: Path) -> None:
    """Print the tables, keep them in ``out``, and say where everything lies."""
    text = io.StringIO()
    for console in (Console(highlight=False, markup=False), Console(file=text, width=TEXT_COLUMNS, markup=False)):
        console.print(*tables)
    write_text(out / "profile.txt", text.getvalue())
    print(f"{out / 'profile.txt'}  these tables")
    print(f"{out / 'trace-rank-*.json.gz'}  every operation, for chrome://tracing or ui.perfetto.dev", flush=True)


if __name__ == "__main__":
    end_with(main)
