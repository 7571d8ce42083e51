"""The backbone and the head of a run, made from its configuration."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from launch.config.classifier import DTYPES
from launch.config.run import Config
from partial_fc import ShardedClassifier, World, sum_gradients
from partial_fc.checkpoint.loading import load_backbone


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


def autocast(config: Config, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """The precision of the backbone's products: bfloat16, or a context that changes nothing."""
    if config.backbone.autocast == "float32":
        return nullcontext
    return partial(torch.autocast, device.type, torch.bfloat16)
