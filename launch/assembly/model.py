"""Backbone, objective and head, made from their sections of the configuration."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from launch.assembly.run_folder import RunFolder
from launch.config.backbone import BackboneConfig
from launch.config.classifier import ClassifierConfig
from launch.config.loading import ConfigError
from launch.config.objectives import ObjectiveConfig
from launch.config.run import Config
from launch.config.stages import stage_configs
from partial_fc import Objective, RowAdamW, RowOptimizer, RowSGD, ShardedClassifier, World, backbones, sum_gradients
from partial_fc.checkpoint.layout import latest_checkpoint
from partial_fc.checkpoint.loading import load_backbone
from partial_fc.compiling import CompiledOrPlain
from partial_fc.objectives import OBJECTIVES
from partial_fc.world import ProcessGroupWorld

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def network(section: BackboneConfig, image_size: int) -> nn.Module:
    """The network for images of ``image_size`` pixels, with first weights; it loads nothing."""
    return backbones.backbone(
        section.name,
        embedding_dim=section.embedding_dim,
        input_size=image_size,
        width=section.width,
        dropout=section.dropout,
        checkpoint_activations=section.checkpoint_activations,
        **section.options(),
    )


def backbone(section: BackboneConfig, image_size: int, weights: Path | None = None) -> nn.Module:
    """The network on the CPU, in channels-last order, with ``weights`` loaded where some are given.

    ``weights`` is a file, a checkpoint's folder or a run's folder, which stands for its last checkpoint.
    """
    made = network(section, image_size)
    if weights is not None:
        load_backbone(checkpoint_of(weights), made)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def checkpoint_of(path: Path) -> Path:
    """The last checkpoint where ``path`` is a run's folder; ``path`` itself where it is a checkpoint's, or a file."""
    checkpoints = RunFolder(path).checkpoints
    return latest_checkpoint(checkpoints) if checkpoints.is_dir() else path


def objective(section: ObjectiveConfig, num_classes: int) -> Objective:
    """The loss."""
    return OBJECTIVES[section.name](**section.arguments(num_classes))


def refuse_unfit_objectives(config: Config, num_classes: int) -> None:
    """ConfigError for an objective, of any stage, that cannot train so many classes in the network's dimensions."""
    try:
        for stage in stage_configs(config):
            objective(stage.objective, num_classes).refuse_unfit(num_classes, config.backbone.embedding_dim)
    except ValueError as error:
        raise ConfigError(f"objective: {error}") from error


def row_optimizer(section: ClassifierConfig) -> RowOptimizer:
    """SGD or AdamW of the class rows."""
    common: dict[str, Any] = {
        "weight_decay": section.weight_decay,
        "state_dtype": DTYPES[section.state],
        "clip": section.clip or None,
    }
    if section.optimizer == "adamw":
        return RowAdamW(section.learning_rate, section.betas, **common)
    return RowSGD(section.learning_rate, section.momentum, **common)


def head(
    section: ClassifierConfig, objective: Objective, num_classes: int, embedding_dim: int, *, world: World, seed: int
) -> ShardedClassifier:
    """This rank's shard of the classifier, with its row optimizer, on the CPU."""
    if section.products == "tf32":
        torch.set_float32_matmul_precision("high")
    return ShardedClassifier(
        num_classes,
        embedding_dim,
        objective,
        world=world,
        sample_rate=section.sample_rate,
        block_classes=section.block_classes,
        row_optimizer=row_optimizer(section),
        product_dtype=torch.bfloat16 if section.products == "bfloat16" else None,
        weight_dtype=DTYPES[section.weights],
        cosines=section.cosines,
        near=section.near,
        seed=seed,
    )


def compiled(backbone: nn.Module, wanted: bool | Literal["auto"]) -> nn.Module:
    """``backbone`` through torch.compile where that is wanted; on ``auto`` where there is a compiler that can."""
    if not is_compiled(wanted):
        return backbone
    return CompiledOrPlain(backbone) if wanted == "auto" else torch.compile(backbone)  # type: ignore[return-value]


def is_compiled(wanted: bool | Literal["auto"]) -> bool:
    """Whether a network is compiled, or on ``auto`` tried: the first step takes about a minute then."""
    if wanted == "auto":
        return torch.cuda.is_available() or shutil.which("g++") is not None or shutil.which("clang++") is not None
    return wanted


def replicated(backbone: nn.Module, world: World) -> nn.Module:
    """``backbone`` under DDP with summed gradients; itself in one process. BatchNorm stays each rank's own."""
    if not isinstance(world, ProcessGroupWorld):
        return backbone
    model = DistributedDataParallel(backbone, forward_sync_buffers=False, gradient_as_bucket_view=True)
    model.register_comm_hook(world, sum_gradients)
    return model


def settle_buckets(model: nn.Module, images_n: Tensor) -> None:
    """Have DDP put its buckets into their final order now, by a backward pass whose gradients are dropped.

    DDP orders the buckets anew after the first backward pass of a process. The first step of a run that goes on would
    sum its gradients in another order than a run that never stopped, and from three ranks on the last places of a sum
    depend on its order. ``images_n`` are any images of the training's shape; statistics and random numbers stay.
    """
    if not isinstance(model, DistributedDataParallel) or model.process_group.size() < 3:
        return
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[images_n.device] if images_n.is_cuda else []):
        model(images_n).float().sum().backward()
    model.zero_grad()
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


def autocast(section: BackboneConfig, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """The precision of the backbone's products: bfloat16, or a context that changes nothing."""
    if section.autocast == "float32":
        return nullcontext
    return partial(torch.autocast, device.type, torch.bfloat16)
