"""``partial-fc plan``: what a configuration needs on any number of GPUs, before anybody rents one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from launch import assembly
from launch.assembly.data import refuse_small_batch
from launch.config.loading import ConfigError
from launch.config.run import Config
from launch.config.stages import objectives_in_words
from launch.planning import figure as plan_figure
from launch.planning import table as plan_table
from launch.planning.forecast import Forecast, forecasts, planner
from launch.planning.rates import measured_rates, read_rates
from launch.writing import naming
from partial_fc.planning.rates import H100, Rates


def run(arguments: argparse.Namespace, config: Config) -> int:
    """Plan ``config`` and return the exit code: 0, also where it does not fit."""
    if arguments.picture is not None and arguments.picture.suffix not in plan_figure.SUFFIXES:
        raise ConfigError(f"--picture {arguments.picture}: expected a name in {', '.join(plan_figure.SUFFIXES)}")
    classes = _num_classes(config, arguments.num_classes)
    refuse_small_batch(config.schedule.batch_size, arguments.gpus, "GPUs")
    rates, origin = _rates(arguments)
    made = planner(config, classes, arguments.device, rates, arguments.gpu_memory, arguments.reserve)
    batch = config.schedule.batch_size
    plans = list(forecasts(made, arguments.gpus, batch, fixed_batch=arguments.fixed_batch))
    asked = next(plan for plan in plans if plan.gpus == arguments.gpus)
    plan_table.print_plan(config, made, plans, asked, origin)
    if arguments.json is not None:
        text = json.dumps(_record(config, arguments, classes, rates, origin, plans), indent=1) + "\n"
        _written(arguments.json, lambda path: path.write_text(text), "the same figures for programs")
    if arguments.picture is not None:
        objectives, dim = objectives_in_words(config), config.backbone.embedding_dim
        title = f"{config.backbone.name}, {objectives}, {classes:,} classes of {dim}"
        _written(
            arguments.picture,
            lambda path: plan_figure.draw(path, title, plans, arguments.gpu_memory),
            "memory and time against the number of GPUs",
        )
    return 0


def _num_classes(config: Config, asked: int | None) -> int:
    if asked is not None:
        if asked < 3:
            raise ConfigError(f"--num-classes {asked}: expected at least 3")
        return asked
    if config.data.num_classes is not None:
        return config.data.num_classes
    try:
        return assembly.open_training_data(config.data, config.seed).num_classes
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"how many classes? The data cannot say ({error}): give data.num_classes or --num-classes"
        ) from error


def _rates(arguments: argparse.Namespace) -> tuple[Rates, str]:
    """The rates, and where they come from."""
    rates, origin = H100, "assumed of an H100 SXM"
    if arguments.rates is not None:
        rates, origin = read_rates(arguments.rates, rates), f"of {arguments.rates}, the rest {origin}"
    if arguments.measure:
        if arguments.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("--measure: this machine has no GPU: run it on one that has, or add --device cpu")
        rates = measured_rates(torch.device(arguments.device), rates)
        origin = f"measured here ({arguments.device}), links {origin}"
    return rates, origin


def _record(
    config: Config, arguments: argparse.Namespace, classes: int, rates: Rates, origin: str, plans: list[Forecast]
) -> dict[str, Any]:
    """The whole plan, for programs. Bytes and seconds throughout."""
    return {
        "config": config.model_dump(mode="json"),
        "num_classes": classes,
        "gpu_memory_bytes": arguments.gpu_memory,
        "rates": asdict(rates),
        "rates_origin": origin,
        "plans": [
            {
                **asdict(plan),
                "total_bytes": plan.total_bytes,
                "fits": plan.total_bytes <= arguments.gpu_memory,
                "step_seconds": plan.time.total,
                "images_per_second": plan.images_per_second,
            }
            for plan in plans
        ],
    }


def _written(path: Path, write: Callable[[Path], object], what: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        write(path)
    print(f"{path}  {what}")
