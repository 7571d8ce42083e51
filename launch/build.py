"""The parts of a run, made from its configuration. Each function makes one part and knows nothing of the others."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import partial_fc
from data_pipeline import Source
from data_pipeline.augment import Augmentation
from data_pipeline.balanced_order import BalancedOrder
from data_pipeline.dali_pipeline import ImageFormat, ImageLoader
from data_pipeline.label_noise import NoisyLabels
from data_pipeline.order import SampleOrder, rank_positions
from data_pipeline.quarantine import quarantined_samples
from data_pipeline.selection import SelectedSource
from launch.config import Config, ConfigError, OptimizerConfig
from launch.config_classifier import DTYPES, DecayConfig
from partial_fc import ShardedClassifier, World, sum_gradients
from partial_fc.checkpoint import load_backbone
from partial_fc.prometheus import PrometheusSink
from partial_fc.report import JsonLinesSink, Sink, TerminalSink
from partial_fc.schedule import learning_rate_factor
from partial_fc.world import local_rank


def set_earlier_run_aside(run_dir: Path) -> Path | None:
    """Where an earlier run in ``run_dir`` was moved, ``run_dir-1`` or the next free number; None if there was none.

    Two runs in one folder would mix their curves, and an evaluation could read the other's last checkpoint.
    """
    if not any((run_dir / name).exists() for name in ("config.yaml", "metrics.jsonl", "checkpoints")):
        return None
    numbered = (run_dir.with_name(f"{run_dir.name}-{number}") for number in itertools.count(1))
    aside = next(path for path in numbered if not path.exists())
    return run_dir.rename(aside)


def backbone(config: Config, weights: Path | None) -> nn.Module:
    """The network of ``config`` on the CPU, in channels-last order, with ``weights`` loaded where some are given."""
    network = config.backbone.build(config.data.image_size)
    if weights is not None:
        load_backbone(weights, network)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def head(config: Config, num_classes: int, world: World) -> ShardedClassifier:
    """This rank's shard of the classifier, with its objective and row optimizer."""
    section = config.classifier
    if section.products == "tf32":
        torch.set_float32_matmul_precision("high")
    return ShardedClassifier(
        num_classes,
        config.backbone.embedding_dim,
        config.objective.build(num_classes),
        world=world,
        sample_rate=section.sample_rate,
        block_classes=section.block_classes,
        row_optimizer=section.build_row_optimizer(),
        product_dtype=torch.bfloat16 if section.products == "bfloat16" else None,
        weight_dtype=DTYPES[section.weights],
        cosines=section.cosines,
        seed=config.seed,
    )


def image_format(config: Config, device: torch.device) -> ImageFormat:
    """What an image becomes: in channels-last order, as the backbone takes it."""
    side = config.data.image_size
    place = "cpu" if device.type == "cpu" else device.index or 0
    return ImageFormat(side, side, device=place, channels_last=True, fill=float(config.data.fill))


def batch_shares(config: Config, world: World) -> list[int]:
    """How many images of every global batch each rank has."""
    return [len(rank_positions(0, config.schedule.batch_size, rank, world.size)) for rank in range(world.size)]


def loader(config: Config, source: Source, world: World, device: torch.device) -> ImageLoader:
    """This rank's part of every global batch, endless. ConfigError when a rank would get fewer than two images."""
    if config.schedule.batch_size < 2 * world.size:
        raise ConfigError(
            f"schedule.batch_size is {config.schedule.batch_size}: BatchNorm needs two images on each of "
            f"{world.size} ranks, {2 * world.size} together"
        )
    return ImageLoader(
        source,
        image_format(config, device),
        global_batch=config.schedule.batch_size,
        rank=world.rank,
        size=world.size,
        seed=config.seed,
        augmentation=Augmentation(**config.data.augmentation.model_dump()),
        quarantine=_quarantine(config, source),
        sample_order=_sample_order(config, source),
        num_threads=config.data.decode_threads,
    )


def _quarantine(config: Config, source: Source) -> NDArray[np.int64]:
    """The listed images, by their numbers in ``source``: a list is of the set as it lies on disk."""
    if config.data.quarantine is None:
        return np.empty(0, np.int64)
    listed = source.source if isinstance(source, NoisyLabels) else source
    if isinstance(listed, SelectedSource):
        return listed.samples_of(quarantined_samples(config.data.quarantine, listed.source))
    return quarantined_samples(config.data.quarantine, listed)


def _sample_order(config: Config, source: Source) -> SampleOrder | None:
    """The order asked for, or None for the usual one. ConfigError for one that the data or the batch cannot have."""
    images_each = config.data.images_per_identity_in_batch
    if images_each is None:
        return None
    batch = config.schedule.batch_size
    try:
        return BalancedOrder(source.labels, global_batch=batch, images_each=images_each, seed=config.seed)
    except ValueError as error:
        raise ConfigError(f"data.images_per_identity_in_batch: {error}") from error


def compiled(backbone: nn.Module, config: Config) -> nn.Module:
    """``backbone`` through torch.compile where the config asks for it or, on ``auto``, a compiler is there."""
    wanted = config.backbone.compile
    if wanted == "auto":
        wanted = torch.cuda.is_available() or shutil.which("g++") is not None or shutil.which("clang++") is not None
    return torch.compile(backbone) if wanted else backbone  # type: ignore[return-value]


def replicated(backbone: nn.Module, world: World) -> nn.Module:
    """``backbone`` under DDP with summed gradients; itself in one process. BatchNorm stays each rank's own."""
    if world.size == 1:
        return backbone
    model = DistributedDataParallel(backbone, forward_sync_buffers=False, gradient_as_bucket_view=True)
    model.register_comm_hook(None, sum_gradients)
    return model


def optimizer(backbone: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; weight decay on matrices and filters only."""
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.momentum, 0.999))
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov)


def rate_setter(
    config: Config, total_steps: int, num_images: int, optimizer: torch.optim.Optimizer, head: ShardedClassifier
) -> Callable[[int], tuple[float, float]]:
    """``set_rates(step)``: the learning rates of backbone and rows, each by its own schedule."""
    steps_per_epoch = num_images / config.schedule.batch_size
    row_schedule = config.classifier.schedule or config.schedule

    def set_rates(step: int) -> tuple[float, float]:
        factor = partial(_factor, step=step, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        rates = (
            config.optimizer.learning_rate * factor(config.schedule),
            config.classifier.learning_rate * factor(row_schedule),
        )
        for group in optimizer.param_groups:
            group["lr"] = rates[0]
        assert head.row_optimizer is not None
        head.row_optimizer.learning_rate = rates[1]
        return rates

    return set_rates


def _factor(schedule: DecayConfig, step: int, total_steps: int, steps_per_epoch: float) -> float:
    return learning_rate_factor(
        step,
        total_steps=total_steps,
        warmup_steps=min(round(schedule.warmup_epochs * steps_per_epoch), total_steps - 1),
        decay=schedule.decay,
        power=schedule.power,
        final=schedule.final,
    )


def autocast(config: Config, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """The precision of the backbone's products: bfloat16, or a context that changes nothing."""
    if config.backbone.autocast == "float32":
        return nullcontext
    return partial(torch.autocast, device.type, torch.bfloat16)


def sinks(config: Config, world: World, num_classes: int) -> Iterator[Sink]:
    """Screen and ``metrics.jsonl`` on rank 0; a Prometheus endpoint on every rank. Each is opened when asked for."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    if world.rank == 0:
        yield TerminalSink()
        yield JsonLinesSink(config.run_dir / "metrics.jsonl")
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
