"""One rank of a training run: ``torchrun ... -m launch.train CONFIG``; ``partial-fc train`` starts them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from data_pipeline.source import Source
from launch import assembly
from launch.assembly.data import set_paths
from launch.assembly.optimizer import total_steps
from launch.assembly.run import Run
from launch.assembly.run_folder import RunFolder
from launch.assembly.stages import begin_stage
from launch.assembly.time_told import tell_time
from launch.command_line import training
from launch.config.apex import refuse_missing_apex
from launch.config.evaluation import EvaluationConfig
from launch.config.loading import absolute, load_config, resolved_yaml
from launch.config.run import Config
from launch.config.stages import objectives_in_words, stage_in_words, stages_of
from launch.errors import Stopped, reported
from launch.evaluation.held_out import held_out_of_training
from launch.evaluation.on_the_way import Examiner, evaluate_at_the_end, sets_to_measure
from launch.meeting import refuse_unknown_interfaces
from launch.planning.shortage import has_room_for_copies, memory_shortage
from launch.processes import end_with, keep_freed_memory
from launch.resilience.agent import end_with_agent, patience_seconds, refuse_restarts_that_hang
from launch.resilience.agreement import agree, shared_memory_shortage, slow_network
from launch.resilience.hearing import leave_on_sigterm
from launch.resilience.resume import checkpoint_to_resume, run_facts
from launch.resilience.stopping import StopRequest
from launch.resilience.watchdog import Watchdog
from launch.units import bytes_text
from launch.writing import write_text
from partial_fc import World
from partial_fc.checkpoint.layout import latest_checkpoint
from partial_fc.divergence import Tolerance, TrainingDiverged
from partial_fc.loop import train
from partial_fc.reports.step_report import Sink
from partial_fc.world import global_rank, local_device, local_rank, process_group


def main(argv: Sequence[str] | None = None) -> int:
    """Run one rank and return its exit code (see ``launch/errors.py``)."""
    parser = argparse.ArgumentParser(prog="python -m launch.train", description=__doc__)
    training.add_arguments(parser)
    arguments = parser.parse_args(argv)
    leave_on_sigterm()
    end_with_agent()
    with reported() as outcome:
        refuse_restarts_that_hang(os.environ)
        refuse_unknown_interfaces(os.environ)
        run(load_config(arguments.config, arguments.set))
    return outcome.exit_code


def run(config: Config) -> None:
    """Train as ``config`` says, save the model, and evaluate it where held-out identities are given.

    Whatever can refuse the start does so before anything of an earlier run in the same folder is touched.
    """
    refuse_missing_apex(config)
    keep_freed_memory()
    torch.manual_seed(config.seed)
    folder = RunFolder(config.run_dir)
    folder.refuse_unfit([*set_paths(config.data), *config.evaluation.sets])
    rank = global_rank()
    with (
        folder.locked(patience_seconds()) if rank == 0 else nullcontext(),
        Watchdog(config.watchdog, folder.stacks_of(rank), rank).watching() as watchdog,
    ):
        _run(absolute(config), folder, watchdog)  # which can then be evaluated from any folder


def _run(config: Config, folder: RunFolder, watchdog: Watchdog) -> None:
    device, data = local_device(), config.data
    source = assembly.open_training_data(data, config.seed)
    stages_of(config, total_steps(config.schedule, len(source)))  # refuses a stage without a step
    assembly.refuse_unfit_objectives(config, source.num_classes)
    identities_C = assembly.identities(data, source)
    held_out = held_out_of_training(data, source)
    sets = sets_to_measure(config, held_out)
    backbone = assembly.backbone(config.backbone, data.image_size, config.backbone.weights)
    with process_group(watchdog.collective_seconds) as world:
        ranks = world.size, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if world.rank == 0:
            _tell(memory_shortage(config, source.num_classes, device, *ranks))
        if local_rank() == 0 and (said := shared_memory_shortage(ranks[1], device)) is not None:
            print(said, flush=True)
        facts = run_facts(config, source, identities_C)
        agree(world, folder, facts, device)
        _tell(slow_network(world, ranks[1], device))
        resumed = checkpoint_to_resume(folder, config, facts, identities_C, world, device)
        parts = assembly.run(
            *(config, source, backbone, world, device), facts=facts, identities_C=identities_C, resumed=resumed
        )
        assembly.refuse_small_disk(folder, parts, config)
        _prepare_saves(config, parts, device, *ranks)
        with (
            assembly.open_sinks(
                *(config.report, folder, world),
                objective=objectives_in_words(config),
                num_classes=source.num_classes,
                saver=parts.saver,
                resumed=resumed,
            ) as sinks,
            StopRequest(world, device).listening() as stop,
        ):
            if world.rank == 0:
                write_text(folder.config, resolved_yaml(config))
                print(*source.left_out, _summary(config, source, parts, world, device), sep="\n", flush=True)
                if assembly.is_compiled(config.backbone.compile):
                    print("the network is compiled first, which takes about a minute", flush=True)
            examiner = Examiner(config, sets, parts, world, device, sinks, parts.save, stop)
            done = _trained(config, parts, folder, sinks, stop, watchdog, examiner)
            if done == parts.total_steps and sets and stop.is_agreed_now():
                raise Stopped(f"SIGTERM: all {done:,} steps are done and saved; the same command evaluates")
        if done < parts.total_steps:
            raise Stopped(f"SIGTERM: stopped after step {done:,}, which is saved; the same command goes on from there")
        watchdog.begin("evaluation")
        parts.spent.spend("save")
        parts.state.average_buffers_()
        found = evaluate_at_the_end(config, parts, held_out, world, device, folder)
        if config.evaluation != EvaluationConfig():
            examiner.at_the_end(done, found)
        parts.spent.spend("evaluation")
        if world.rank == 0 and parts.start_step < parts.total_steps:
            tell_time(parts.spent, folder)


def _prepare_saves(config: Config, parts: Run, device: torch.device, ranks: int, ranks_here: int) -> None:
    """Get the memory for saves ready, where there is room for it, and say where there is none."""
    saver, classes = parts.saver, parts.head.num_classes
    needed = saver.copy_bytes()
    has_room = has_room_for_copies(config, classes, device, ranks, ranks_here, needed)
    if not saver.prepare(has_room=has_room) and config.checkpoint.in_background and parts.state.world.rank == 0:
        print(
            f"a copy of the state, {bytes_text(needed)} on this rank, does not fit beside the training: checkpoints "
            "are written in parts, and training waits for them",
            flush=True,
        )


def _trained(
    config: Config,
    parts: Run,
    folder: RunFolder,
    sinks: Sequence[Sink],
    stop: StopRequest,
    watchdog: Watchdog,
    examiner: Examiner,
) -> int:
    """How many steps of the run are done, when the last of them is saved, and the last of each stage before.

    Where a stage's last step was skipped, the first good one after it is saved: weights that make bad losses are not
    worth it.
    """
    save, done, before, is_save_due = watchdog.save(parts.save), parts.start_step, parts.stage, False
    examine, every = watchdog.evaluation(examiner.on_the_way), config.evaluation.every_steps
    try:
        if every is not None:
            watchdog.evaluation(examiner.make_up)(done)
            watchdog.begin("start")
        for stage in parts.stages:
            if stop.was_agreed:
                break
            if done >= stage.stop_step:
                continue
            if len(parts.stages) > 1:
                _tell(stage_in_words(parts.stages, stage.number))
            if stage is not before:
                watchdog.begin("start")
                begin_stage(parts, before, stage)
            before, parts.meter.stage = stage, stage.number
            done = train(
                range(done, stage.stop_step),
                batches=parts.batches,
                counts=parts.counts,
                backbone=parts.model,
                head=parts.head,
                optimizer=parts.optimizer,
                set_rates=parts.set_rates,
                autocast=parts.autocast,
                clip_norm=config.optimizer.clip_norm,
                meter=parts.meter,
                sinks=sinks,
                report_every=config.report.every_steps,
                save=save,
                save_every=config.save_every_steps,
                is_save_due=is_save_due,
                evaluate=examine,
                evaluate_every=every,
                stops=watchdog.stops(stop.is_agreed),
                course=parts.state.course,
                tolerance=Tolerance(**config.divergence.model_dump()),
                told=_tell,
            )
            goes_on = done < parts.total_steps and not stop.was_agreed
            is_save_due = parts.saver.last_step != done
            if is_save_due and not (goes_on and parts.state.course.was_skipped(done - 1)):
                save(done)
                is_save_due = False
            if goes_on and every is not None and done % every == 0:
                examine(done)
                if stop.was_agreed and is_save_due:
                    save(done)
    except TrainingDiverged as error:
        parts.saver.wait()
        raise TrainingDiverged(f"{error}. {_last_good(folder)}") from error
    parts.saver.wait()
    return done


def _tell(text: str | None) -> None:
    """Print on rank 0 what there is to say."""
    if global_rank() == 0 and text is not None:
        print(text, flush=True)


def _last_good(folder: RunFolder) -> str:
    try:
        return f"The last good checkpoint is {latest_checkpoint(folder.checkpoints)}"
    except FileNotFoundError:
        return "There is no checkpoint yet: one is written every save_every_steps"


def _summary(config: Config, source: Source, parts: Run, world: World, device: torch.device) -> str:
    parameters = sum(parameter.numel() for parameter in parts.backbone.parameters())
    return (
        f"{len(source):,} images of {source.num_classes:,} identities{assembly.numbering(source)}; "
        f"{config.backbone.name} of width {config.backbone.width} ({parameters / 1e6:.1f} M parameters), "
        f"{objectives_in_words(config)}; {parts.total_steps:,} steps of {config.schedule.batch_size} "
        f"on {world.size} x {device.type}{f', going on after step {parts.start_step:,}' if parts.start_step else ''}"
    )


if __name__ == "__main__":
    end_with(main)
