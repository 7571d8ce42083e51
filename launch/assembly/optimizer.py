"""The backbone's optimizer, and the learning rates of backbone and rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from launch.assembly.apex_optimizers import Groups, Larc, apex_adamw, apex_lamb, apex_sgd
from launch.config.loading import ConfigError
from launch.config.run import OptimizerConfig
from launch.config.schedule import DecayConfig, ScheduleConfig
from launch.config.stages import Stage, stage_at
from partial_fc import ShardedClassifier
from partial_fc.schedule import learning_rate_factor


def optimizer(section: OptimizerConfig, backbone: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of ``section.name``; weight decay on matrices and filters, or on all parameters.

    On GPUs torch's own are fused ones, which can leave a step out that the device finds bad, so that no host waits.
    ConfigError for one of apex's on a CPU.
    """
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    decay_of_vectors = section.weight_decay if section.decays == "all" else 0.0
    groups: Groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": section.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": decay_of_vectors},
    ]
    if section.name != section.rule and not all(parameter.is_cuda for parameter in trained):
        raise ConfigError(f"optimizer.name {section.name}: apex's run on GPUs alone; on a CPU take sgd or adamw")
    made = OPTIMIZERS[section.name](section, [group for group in groups if group["params"]])  # apex wants no empty one
    return made if section.larc is None else Larc(made, section.larc)


def _sgd(section: OptimizerConfig, groups: Groups) -> torch.optim.Optimizer:
    nesterov, fused = section.momentum > 0 and section.nesterov, _is_fused(section, groups)
    sgd = torch.optim.SGD(groups, lr=section.learning_rate, momentum=section.momentum, nesterov=nesterov, fused=fused)
    if fused and section.momentum > 0:
        for parameter in (parameter for group in groups for parameter in group["params"]):
            # torch leaves them uninitialised where the first step is left out
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def _adamw(section: OptimizerConfig, groups: Groups) -> torch.optim.Optimizer:
    betas = (section.momentum, 0.999)
    return torch.optim.AdamW(groups, lr=section.learning_rate, betas=betas, fused=_is_fused(section, groups))


def _is_fused(section: OptimizerConfig, groups: Groups) -> bool:
    """On GPUs, and not under LARC, which hands the device's answer not on."""
    return section.larc is None and any(parameter.is_cuda for group in groups for parameter in group["params"])


OPTIMIZERS: dict[str, Callable[[OptimizerConfig, Groups], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "apex_sgd": apex_sgd,
    "apex_adamw": apex_adamw,
    "apex_lamb": apex_lamb,
}


def rate_setter(
    stages: Sequence[Stage], optimizer: torch.optim.Optimizer, head: ShardedClassifier, *, steps_per_epoch: float
) -> Callable[[int], tuple[float, float]]:
    """``set_rates(step)``: sets and returns the learning rates of backbone and rows, each by its own schedule.

    The schedules run over the whole run; what they scale are the rates of the step's stage.
    """
    rows = head.row_optimizer
    assert rows is not None
    factor = partial(_factor, total_steps=stages[-1].stop_step, steps_per_epoch=steps_per_epoch)

    def set_rates(step: int) -> tuple[float, float]:
        config = stage_at(stages, step).config
        schedule, row_schedule = config.schedule, config.classifier.schedule or config.schedule
        rate = config.optimizer.learning_rate * factor(schedule, step)
        rows.learning_rate = config.classifier.learning_rate * factor(row_schedule, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate, rows.learning_rate

    return set_rates


def total_steps(schedule: ScheduleConfig, num_images: int) -> int:
    """The steps of a whole run."""
    return max(round(schedule.epochs * num_images / schedule.batch_size), 1)


def warmup_steps(schedule: DecayConfig, total_steps: int, steps_per_epoch: float) -> int:
    """Those of them in which the rate rises."""
    return min(round(schedule.warmup_epochs * steps_per_epoch), total_steps - 1)


def _factor(schedule: DecayConfig, step: int, total_steps: int, steps_per_epoch: float) -> float:
    return learning_rate_factor(
        step,
        total_steps=total_steps,
        warmup_steps=warmup_steps(schedule, total_steps, steps_per_epoch),
        decay=schedule.decay,
        power=schedule.power,
        final=schedule.final,
    )
