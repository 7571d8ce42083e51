"""A configuration's plan: memory, classes and time for any number of GPUs, from ``partial_fc.planning``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from launch import assembly
from launch.assembly.data import LEAST_IMAGES_OF_RANK
from launch.assembly.model import DTYPES
from launch.config.run import Config
from partial_fc.planning.backbone_cost import BackboneCost
from partial_fc.planning.collectives import Collective, backbone_collectives
from partial_fc.planning.head_cost import HeadCost
from partial_fc.planning.memory import most_classes, rank_memory
from partial_fc.planning.planned_head import HeadSpec
from partial_fc.planning.rates import Rates
from partial_fc.planning.save_cost import SaveCost, save_cost
from partial_fc.planning.step_time import StepTime, step_time

MOST_GPUS = 1024


@dataclass(frozen=True)
class Forecast:
    """One number of GPUs: the global batch, bytes of the fullest GPU by part, what fits, a step's time, a save."""

    gpus: int
    batch: int
    memory_bytes: dict[str, int]
    most_classes: int
    time: StepTime
    collectives: tuple[Collective, ...]
    save: SaveCost

    @property
    def total_bytes(self) -> int:
        """What the fullest GPU needs."""
        return sum(self.memory_bytes.values())

    @property
    def images_per_second(self) -> float:
        """Of all GPUs together."""
        return self.batch / self.time.total


@dataclass(frozen=True)
class Planner:
    """What a plan is made of; :meth:`forecast` answers for one number of GPUs."""

    num_classes: int
    head: HeadCost
    backbone: BackboneCost
    backbone_moments: int
    backbone_products: str
    rates: Rates
    memory_bytes: int
    reserve_bytes: int

    def forecast(self, gpus: int, batch: int) -> Forecast:
        """The plan for ``gpus`` and a global ``batch``."""
        said = self.head.step(self.num_classes, batch, gpus).collectives
        return Forecast(
            gpus,
            batch,
            self.rank_bytes(gpus, batch),
            most_classes(
                lambda classes: sum(self._memory(classes, gpus, batch).values()),
                self.memory_bytes,
            ),
            step_time(self.head, self.num_classes, self.backbone, self.backbone_products, batch, gpus, self.rates),
            (*said, *backbone_collectives(self.backbone.parameters)) if gpus > 1 else (),
            self.save_cost(gpus),
        )

    def save_cost(self, gpus: int) -> SaveCost:
        """What a save of ``gpus`` costs."""
        return save_cost(self.head, self.num_classes, self.backbone, self.backbone_moments, gpus, self.rates)

    def rank_bytes(self, gpus: int, batch: int) -> dict[str, int]:
        """The bytes of the fullest of ``gpus``, by part; half a second, where :meth:`forecast` takes one."""
        return self._memory(self.num_classes, gpus, batch)

    def _memory(self, num_classes: int, gpus: int, batch: int) -> dict[str, int]:
        return rank_memory(
            self.head, num_classes, self.backbone, self.backbone_moments, batch, gpus, self.reserve_bytes
        )


def planner(config: Config, num_classes: int, device: str, rates: Rates, memory: int, reserve: int) -> Planner:
    """The planner of ``config`` with ``num_classes`` on devices of ``memory`` bytes that keep ``reserve`` free."""
    autocast = config.backbone.autocast
    network = partial(assembly.network, config.backbone, config.data.image_size)
    return Planner(
        num_classes=num_classes,
        head=HeadCost(head_spec(config, device)),
        backbone=BackboneCost(network, config.data.image_size, torch.bfloat16 if autocast == "bfloat16" else None),
        backbone_moments=2 if config.optimizer.name == "adamw" else int(config.optimizer.momentum > 0),
        backbone_products=autocast,
        rates=rates,
        memory_bytes=memory,
        reserve_bytes=reserve,
    )


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
