"""The stages of a run: the steps of each, and the configuration that holds in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from launch.config.loading import ConfigError
from launch.config.run import Config
from launch.config.stage import StageConfig


@dataclass(frozen=True)
class Stage:
    """A part of a run, its steps ``first_step`` to ``stop_step`` - 1, counted from 0.

    ``number`` counts from 1. ``config`` is what holds in it: that of a run without stages.
    """

    number: int
    first_step: int
    stop_step: int
    config: Config


def stages_of(config: Config, total_steps: int) -> list[Stage]:
    """The stages of a run of ``total_steps``, without gaps; one where the configuration names none.

    ConfigError for a stage too short to have a step.
    """
    shares, configs = config.schedule.stage_shares(), stage_configs(config)
    ends = [round(math.fsum(shares[:number]) * total_steps) for number in range(1, len(shares))] + [total_steps]
    stages = [
        Stage(number, first, stop, each)
        for number, (first, stop, each) in enumerate(zip([0, *ends], ends, configs, strict=False), 1)
    ]
    for stage in stages:
        if stage.first_step >= stage.stop_step:
            raise ConfigError(
                f"schedule.stages: stage {stage.number} of {len(stages)} is too short to have a step, of the "
                f"{total_steps:,} of the run"
            )
    return stages


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """The stage of ``step``, which counts from 0; the last one for a step after the run."""
    return next((stage for stage in stages if step < stage.stop_step), stages[-1])


def stage_after(stages: Sequence[Stage], done: int) -> Stage:
    """The stage that a checkpoint of ``done`` steps belongs to: at a stage's end that stage, not the next one."""
    return stage_at(stages, max(done - 1, 0))


def stage_configs(config: Config) -> list[Config]:
    """What holds in each stage, as the configuration of a run without stages: its changes and those before it."""
    plain = config.model_copy(update={"schedule": config.schedule.model_copy(update={"stages": None})})
    configs = [plain]
    for stage in config.schedule.stages or ():
        configs.append(_changed(configs[-1], stage))
    return configs[1:] or [plain]


def _changed(config: Config, stage: StageConfig) -> Config:
    changes: dict[str, Any] = {
        "classifier": config.classifier.model_copy(update=stage.classifier.model_dump(exclude_none=True)),
        "optimizer": config.optimizer.model_copy(update=stage.optimizer.model_dump(exclude_none=True)),
    }
    if stage.objective is not None:
        changes["objective"] = stage.objective
    if stage.augmentation is not None:
        changes["data"] = config.data.model_copy(update={"augmentation": stage.augmentation})
    return config.model_copy(update=changes)


def objectives_in_words(config: Config) -> str:
    """The names of the run's objectives in their order: ``p2sgrad, then adacos``."""
    return ", then ".join(name for name, _ in groupby(each.objective.name for each in stage_configs(config)))


def stage_names(config: Config) -> list[str]:
    """A few words for each stage: its objective where that changes, else its share of the classes, else its number."""
    configs = stage_configs(config)
    named: list[str] = [configs[0].objective.name]
    for number, (before, after) in enumerate(pairwise(configs), 2):
        rate = after.classifier.sample_rate
        if after.objective.name != before.objective.name:
            named.append(after.objective.name)
        elif rate != before.classifier.sample_rate:
            named.append("all classes" if rate == 1 else f"{100 * rate:g} % of the classes")
        else:
            named.append(f"stage {number}")
    return named


def stage_in_words(stages: Sequence[Stage], number: int) -> str:
    """A line: where stage ``number`` begins and what it changes; of the first one, what later ones will change."""
    stage, settings = stages[number - 1], [_settings(each.config) for each in stages]
    if number > 1:
        changed = [f"{key} {now} (was {was})" for key, was, now in _changes(settings[number - 2], settings[number - 1])]
    else:
        later = {key for before, after in pairwise(settings) for key, *_ in _changes(before, after)}
        changed = [f"{key} {value}" for key, value in settings[0].items() if key in later]
    begin = f"stage {number} of {len(stages)} from step {stage.first_step + 1:,}"
    return f"{begin}: {', '.join(changed) or 'nothing changes'}"


def _changes(before: dict[str, str], after: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """The keys that differ, with both values; of another objective its name alone."""
    is_other = before["objective"] != after["objective"]
    for key, value in after.items():
        if before.get(key) != value and not (is_other and key.startswith("objective.")):
            yield key, before[key], value


def _settings(config: Config) -> dict[str, str]:
    """All that a stage can change, as text by key."""
    objective = config.objective.model_dump()
    values = {
        "objective": objective.pop("name"),
        **{f"objective.{key}": value for key, value in objective.items()},
        "classifier.sample_rate": config.classifier.sample_rate,
        "classifier.learning_rate": config.classifier.learning_rate,
        "classifier.clip": config.classifier.clip,
        "optimizer.learning_rate": config.optimizer.learning_rate,
        **{f"data.augmentation.{key}": value for key, value in config.data.augmentation.model_dump().items()},
    }
    return {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in values.items()}
