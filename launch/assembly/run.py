"""A training run as one object: every part of it, made from its section of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from data_pipeline.loader.image_loader import ImageLoader
from data_pipeline.source import Source
from launch.assembly.bad_images import agreed_bad_images
from launch.assembly.data import batch_shares, loader
from launch.assembly.model import autocast, compiled, head, objective, replicated
from launch.assembly.optimizer import optimizer, rate_setter
from launch.assembly.run_folder import RunFolder
from launch.config.run import Config
from partial_fc import ShardedClassifier, World
from partial_fc.checkpoint.saving import save_checkpoint
from partial_fc.divergence import refuse_spoilt_weights
from partial_fc.reports.meter import Meter


@dataclass(frozen=True)
class Run:
    """One rank's parts of a run: what ``partial_fc.loop.train`` takes, and the backbone that is saved and measured.

    ``model`` is ``backbone`` compiled and under DDP: the same weights. ``save(step)`` saves the model on all ranks.
    """

    total_steps: int
    batches: ImageLoader
    counts: list[int]
    backbone: nn.Module
    model: nn.Module
    head: ShardedClassifier
    optimizer: torch.optim.Optimizer
    set_rates: Callable[[int], tuple[float, float]]
    autocast: Callable[[], AbstractContextManager[object]]
    meter: Meter
    save: Callable[[int], None]


def run(config: Config, source: Source, backbone: nn.Module, world: World, device: torch.device) -> Run:
    """The parts of a run on ``source`` that trains ``backbone``, which moves to ``device``."""
    schedule, num_classes = config.schedule, source.num_classes
    steps_per_epoch = len(source) / schedule.batch_size
    total_steps = max(round(schedule.epochs * len(source) / schedule.batch_size), 1)
    backbone = backbone.to(device)
    loss = objective(config.objective, num_classes)
    shard = head(config.classifier, loss, num_classes, config.backbone.embedding_dim, world=world, seed=config.seed)
    shard = shard.to(device)
    model = replicated(compiled(backbone, config.backbone.compile), world)
    steps = optimizer(config.optimizer, backbone)
    batches = loader(config.data, source, batch_size=schedule.batch_size, seed=config.seed, world=world, device=device)
    bad_images = partial(agreed_bad_images, batches, config.data.most_bad_images, world, device)
    facts = {"config": config.model_dump(mode="json"), "num_images": len(source)}
    checkpoints = RunFolder(config.run_dir).checkpoints
    return Run(
        total_steps=total_steps,
        batches=batches,
        counts=batch_shares(schedule.batch_size, world.size),
        backbone=backbone,
        model=model,
        head=shard,
        optimizer=steps,
        set_rates=rate_setter(
            schedule,
            config.classifier.schedule or schedule,
            steps,
            shard,
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
        ),
        autocast=autocast(config.backbone, device),
        meter=Meter(total_steps=total_steps, images_per_epoch=len(source), device=device, bad_images=bad_images),
        save=partial(_save, checkpoints, backbone=backbone, head=shard, world=world, facts=facts),
    )


def _save(
    folder: Path, step: int, *, backbone: nn.Module, head: ShardedClassifier, world: World, facts: dict[str, object]
) -> None:
    refuse_spoilt_weights(backbone, head, step)
    save_checkpoint(folder, step, backbone, head, world, facts)
