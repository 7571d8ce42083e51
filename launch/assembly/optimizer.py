"""The backbone's optimizer, and the learning rates of backbone and rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from launch.config.run import Config, OptimizerConfig
from launch.config.schedule import DecayConfig
from partial_fc import ShardedClassifier
from partial_fc.schedule import learning_rate_factor


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
