"""A training run as one object: every part of it, made from its section of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_pipeline.loader.image_loader import ImageLoader
from data_pipeline.source import Source
from launch.assembly.data import batch_shares, loader, refuse_small_batch
from launch.assembly.model import autocast, checkpoint_of, compiled, head, objective, replicated, settle_buckets
from launch.assembly.moved_in import taken_over
from launch.assembly.optimizer import optimizer, rate_setter, total_steps
from launch.assembly.rank_figures import gathered_figures
from launch.assembly.run_folder import RunFolder
from launch.config.run import Config
from launch.config.stages import Stage, stage_after, stages_of
from launch.units import bytes_text
from partial_fc import ShardedClassifier, World
from partial_fc.checkpoint.arcface_torch import Origin
from partial_fc.checkpoint.identities import RowCounts
from partial_fc.checkpoint.layout import CheckpointFolder
from partial_fc.checkpoint.loading import load_training_state, start_rows
from partial_fc.checkpoint.saving import Saver
from partial_fc.checkpoint.taking_up import take_up
from partial_fc.checkpoint.training_state import TrainingState
from partial_fc.checkpoint.writing import Saved
from partial_fc.reports.meter import Meter
from partial_fc.reports.time_spent import TimeSpent, started_seconds
from partial_fc.reports.traffic import Traffic

_TIME_SPENT = "time_spent"  # the key of a manifest's facts


@dataclass(frozen=True)
class Run:
    """One rank's parts of a run: what ``partial_fc.loop.train`` takes, and the backbone that is saved and measured.

    ``model`` is ``backbone`` compiled and under DDP: the same weights. The run goes on from ``start_step``, where it
    took a checkpoint up, with the parts of ``stage``: that of the step before, which ends there where ``start_step`` is
    the next one's first. ``save(step)`` begins a checkpoint on all ranks; ``saver.wait()`` ends it. ``spent`` is the
    account of the run's time.
    """

    start_step: int
    stages: Sequence[Stage]
    stage: Stage
    batches: ImageLoader
    counts: list[int]
    backbone: nn.Module
    model: nn.Module
    head: ShardedClassifier
    optimizer: torch.optim.Optimizer
    set_rates: Callable[[int], tuple[float, float]]
    autocast: Callable[[], AbstractContextManager[object]]
    meter: Meter
    state: TrainingState
    saver: Saver
    save: Callable[[int], None]
    spent: TimeSpent

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.stages[-1].stop_step


def run(
    config: Config,
    source: Source,
    backbone: nn.Module,
    world: World,
    device: torch.device,
    *,
    facts: dict[str, Any],
    identities_C: Tensor | None = None,
    resumed: Path | None = None,
) -> Run:
    """The parts of a run on ``source`` that trains ``backbone``, which moves to ``device``.

    ``facts`` go into the checkpoints' manifests; ``identities_C`` are the keys by which rows are found again;
    ``resumed`` is the checkpoint to go on from. ConfigError for a stage without a step, or a batch too small.
    """
    schedule, num_classes = config.schedule, source.num_classes
    refuse_small_batch(schedule.batch_size, world.size, "ranks")  # before any rank runs the network
    steps_per_epoch = len(source) / schedule.batch_size
    stages = stages_of(config, total_steps(schedule, len(source)))
    manifest = CheckpointFolder(resumed).manifest() if resumed is not None else None
    stage = stage_after(stages, manifest.step if manifest is not None else 0)
    config, world.traffic = stage.config, Traffic()
    spent = TimeSpent(started_seconds(), manifest.facts.get(_TIME_SPENT) if manifest is not None else None)
    backbone = backbone.to(device)
    loss = objective(config.objective, num_classes)
    shard = head(config.classifier, loss, num_classes, config.backbone.embedding_dim, world=world, seed=config.seed)
    shard = shard.to(device)
    steps = optimizer(config.optimizer, backbone)
    model = replicated(compiled(backbone, config.backbone.compile), world)  # DDP gives all ranks the buffers of rank 0
    counts, casts = batch_shares(schedule.batch_size, world.size), autocast(config.backbone, device)
    with casts():
        settle_buckets(model, _blank_images(counts[world.rank], config.data.image_size, device))
    own = slice(shard.shard.start, shard.shard.stop)
    identities_c = None if identities_C is None else identities_C[own].clone()
    state = TrainingState(backbone, shard, steps, world, identities_c=identities_c)
    if world.rank:  # each rank draws dropout of its own; a checkpoint brings the generators back
        torch.manual_seed(config.seed + world.rank)
    start = _start_step(config, state, resumed)
    if config.resume == "changed":
        state.course.begin_anew()
    batches = loader(
        *(config.data, source),
        batch_size=schedule.batch_size,
        seed=config.seed,
        world=world,
        device=device,
        start_step=start,
    )
    most_bad = config.data.most_bad_images
    gather = partial(gathered_figures, counted=batches, most_share=most_bad, world=world, device=device)
    saver = Saver(
        *(RunFolder(config.run_dir).checkpoints, state, facts),
        keep_last=config.checkpoint.keep_last,
        keep_every_steps=config.checkpoint.keep_every_steps,
        in_background=config.checkpoint.in_background is not False,
        on_saved=_say,
    )
    return Run(
        start_step=start,
        stages=stages,
        stage=stage,
        batches=batches,
        counts=counts,
        backbone=backbone,
        model=model,
        head=shard,
        optimizer=steps,
        set_rates=rate_setter(stages, steps, shard, steps_per_epoch=steps_per_epoch),
        autocast=casts,
        meter=Meter(
            total_steps=stages[-1].stop_step,
            images_per_epoch=len(source),
            step=start,
            images=start * schedule.batch_size,
            device=device,
            gather=gather,
            traffic=world.traffic,
            spent=spent,
        ),
        state=state,
        saver=saver,
        save=partial(_save, saver, facts, spent),
        spent=spent,
    )


def _save(saver: Saver, facts: dict[str, Any], spent: TimeSpent, step: int) -> None:
    """Begin the checkpoint of ``step``, with the account of the time until now in its manifest."""
    spent.spend("training")
    saver.facts = {**facts, _TIME_SPENT: spent.record()}
    saver.save(step)
    spent.spend("save")


def _start_step(config: Config, state: TrainingState, resumed: Path | None) -> int:
    """The step to go on after: that of ``resumed``, which is taken up; else 0, with the rows that the config names."""
    if resumed is not None:
        origin = Origin.of(CheckpointFolder(resumed).manifest())
        if origin is not None:
            return _taken_over(resumed, state, config, origin)
        start, rows = load_training_state(resumed, state, config.seed)
        if rows.new or rows.removed:
            _say_rows(resumed, rows, state.world)
        return start
    if (path := config.classifier.rows) is not None:
        _say_rows(path, start_rows(checkpoint_of(path), state.head, state.identities_c), state.world)
    return 0


def _say_rows(path: Path, rows: RowCounts, world: World) -> None:
    if world.rank == 0:
        print(f"class rows of {_from_here(path)}: {rows}", flush=True)


def _taken_over(checkpoint: Path, state: TrainingState, config: Config, origin: Origin) -> int:
    """The step that a training of arcface_torch goes on after, when ``state`` is that of its imported checkpoint."""
    manifest = take_up(checkpoint, state, origin, seed=config.seed, batch_size=config.schedule.batch_size)
    if state.world.rank == 0:
        print(*taken_over(manifest, origin, config), sep="\n", flush=True)
    return manifest.step


def _blank_images(count: int, side: int, device: torch.device) -> Tensor:
    return torch.zeros(count, 3, side, side, device=device).to(memory_format=torch.channels_last)


def _say(saved: Saved) -> None:
    path, size = _from_here(saved.path), bytes_text(saved.size_bytes)
    written = "written in parts" if saved.in_parts else f"written in {saved.writing_seconds:.2g} s"
    print(f"{path}  {size}: training paused {saved.pause_seconds:.2g} s, {written}", flush=True)


def _from_here(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
