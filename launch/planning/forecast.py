"""A configuration's plan: memory, classes and time for any number of GPUs, from ``partial_fc.planning``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from launch import assembly
from launch.assembly.data import LEAST_IMAGES_OF_RANK
from launch.assembly.model import DTYPES
from launch.config.objectives import ObjectiveConfig
from launch.config.run import Config
from launch.config.stages import stage_configs, stage_names
from partial_fc.planning.backbone_cost import BackboneCost
from partial_fc.planning.collectives import Collective, backbone_collectives
from partial_fc.planning.head_cost import HeadCost
from partial_fc.planning.memory import most_classes, rank_memory
from partial_fc.planning.planned_head import HeadSpec
from partial_fc.planning.rates import Rates
from partial_fc.planning.save_cost import SaveCost, save_cost
from partial_fc.planning.step_time import StepTime, mean_time, step_time

MOST_GPUS = 1024


@dataclass(frozen=True)
class StageForecast:
    """A stage of the run on one number of GPUs: its share of the steps, bytes of the fullest GPU, a step's time."""

    name: str
    share: float
    total_bytes: int
    time: StepTime


@dataclass(frozen=True)
class Forecast:
    """One number of GPUs: the global batch, bytes of the fullest GPU by part, what fits, a step's time, a save.

    Memory and collectives are those of the stage that needs most memory, ``time`` is the mean over the run.
    """

    gpus: int
    batch: int
    memory_bytes: dict[str, int]
    most_classes: int
    time: StepTime
    collectives: tuple[Collective, ...]
    save: SaveCost
    stages: tuple[StageForecast, ...]

    @property
    def total_bytes(self) -> int:
        """What the fullest GPU needs."""
        return sum(self.memory_bytes.values())

    @property
    def images_per_second(self) -> float:
        """Of all GPUs together."""
        return self.batch / self.time.total


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the run: its name, its share of the steps, and the classifier in it."""

    name: str
    share: float
    head: HeadCost


@dataclass(frozen=True)
class Planner:
    """What a plan is made of; :meth:`forecast` answers for one number of GPUs."""

    num_classes: int
    stages: tuple[PlannedStage, ...]
    backbone: BackboneCost
    backbone_moments: int
    backbone_products: str
    rates: Rates
    memory_bytes: int
    reserve_bytes: int

    def forecast(self, gpus: int, batch: int) -> Forecast:
        """The plan for ``gpus`` and a global ``batch``."""
        head, memory_bytes = self._fullest(self.num_classes, gpus, batch)
        said, stages = head.step(self.num_classes, batch, gpus).collectives, self._stages(gpus, batch)
        return Forecast(
            gpus,
            batch,
            memory_bytes,
            most_classes(
                lambda classes: sum(self._fullest(classes, gpus, batch)[1].values()),
                self.memory_bytes,
            ),
            mean_time([(stage.share, stage.time) for stage in stages]),
            (*said, *backbone_collectives(self.backbone.parameters)) if gpus > 1 else (),
            self.save_cost(gpus),
            stages,
        )

    @property
    def head(self) -> HeadCost:
        """The classifier, as it begins."""
        return self.stages[0].head

    def save_cost(self, gpus: int) -> SaveCost:
        """What a save of ``gpus`` costs."""
        return save_cost(self.head, self.num_classes, self.backbone, self.backbone_moments, gpus, self.rates)

    def rank_bytes(self, gpus: int, batch: int) -> dict[str, int]:
        """The bytes of the fullest of ``gpus``, by part; half a second, where :meth:`forecast` takes one."""
        return self._fullest(self.num_classes, gpus, batch)[1]

    def _fullest(self, num_classes: int, gpus: int, batch: int) -> tuple[HeadCost, dict[str, int]]:
        """The classifier of the stage that needs most memory, and the bytes by part."""
        heads = dict.fromkeys(stage.head for stage in self.stages)
        found = [(head, self._memory(head, num_classes, gpus, batch)) for head in heads]
        return max(found, key=lambda each: sum(each[1].values()))

    def _memory(self, head: HeadCost, num_classes: int, gpus: int, batch: int) -> dict[str, int]:
        return rank_memory(head, num_classes, self.backbone, self.backbone_moments, batch, gpus, self.reserve_bytes)

    def _stages(self, gpus: int, batch: int) -> tuple[StageForecast, ...]:
        classes, network = self.num_classes, (self.backbone, self.backbone_products)
        return tuple(
            StageForecast(
                stage.name,
                stage.share,
                sum(self._memory(stage.head, classes, gpus, batch).values()),
                step_time(stage.head, classes, *network, batch, gpus, self.rates),
            )
            for stage in self.stages
        )


def planner(config: Config, num_classes: int, device: str, rates: Rates, memory: int, reserve: int) -> Planner:
    """The planner of ``config`` with ``num_classes`` on devices of ``memory`` bytes that keep ``reserve`` free.

    ConfigError where an objective cannot train so many classes in the network's dimensions.
    """
    assembly.refuse_unfit_objectives(config, num_classes)
    autocast = config.backbone.autocast
    network = partial(assembly.network, config.backbone.of_torch_alone(), config.data.image_size)
    return Planner(
        num_classes=num_classes,
        stages=_planned_stages(config, device),
        backbone=BackboneCost(network, config.data.image_size, torch.bfloat16 if autocast == "bfloat16" else None),
        backbone_moments=config.optimizer.moments,
        backbone_products=autocast,
        rates=rates,
        memory_bytes=memory,
        reserve_bytes=reserve,
    )


def _planned_stages(config: Config, device: str) -> tuple[PlannedStage, ...]:
    """The stages of ``config``; those with the same classifier share one, as its steps are planned once."""
    heads = dict[tuple[ObjectiveConfig, float], HeadCost]()
    shares, stages = config.schedule.stage_shares(), list[PlannedStage]()
    for name, share, of_stage in zip(stage_names(config), shares, stage_configs(config), strict=True):
        key = of_stage.objective, of_stage.classifier.sample_rate
        if key not in heads:
            heads[key] = HeadCost(head_spec(of_stage, device))
        stages.append(PlannedStage(name, share, heads[key]))
    return tuple(stages)


def head_spec(config: Config, device: str) -> HeadSpec:
    """The classifier of ``config`` on ``device``."""
    section = config.classifier
    return HeadSpec(
        config.backbone.embedding_dim,
        partial(assembly.objective, config.objective),
        partial(assembly.row_optimizer, section),
        sample_rate=section.sample_rate,
        block_classes=section.block_classes,
        products=section.products,
        weight_dtype=DTYPES[section.weights],
        cosines=section.cosines,
        near=section.near,
        on_gpu=device == "cuda",
    )


def gpu_counts(asked: int) -> list[int]:
    """1, 2, 4, ... 1024, and the number asked for."""
    return sorted({1 << power for power in range(MOST_GPUS.bit_length())} | {asked})


def forecasts(planner: Planner, asked_gpus: int, batch: int, *, fixed_batch: bool) -> Iterator[Forecast]:
    """The plan for 1 to 1024 GPUs: with each GPU's images, or with ``fixed_batch`` the global batch, as configured.

    BatchNorm needs two images on every rank: more GPUs than that are left out.
    """
    share = batch / asked_gpus
    for gpus in gpu_counts(asked_gpus):
        whole = batch if fixed_batch or gpus == asked_gpus else round(share * gpus)
        if whole >= LEAST_IMAGES_OF_RANK * gpus:
            yield planner.forecast(gpus, whole)
