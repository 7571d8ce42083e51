"""The section `schedule`: how long, how much at once, how the learning rates fall, and what changes on the way."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from launch.config.section import Section
from launch.config.stage import StageConfig

_ROUNDING = 1e-3  # of the run: lengths written with three digits


class DecayConfig(Section):
    """How a learning rate changes over the run: a warm-up, then a fall."""

    warmup_epochs: float = Field(1.0, ge=0, description="the rate rises for so long")
    decay: Literal["polynomial", "cosine"] = Field("polynomial", description="how the rate falls after that")
    power: float = Field(2.0, gt=0, description="of the polynomial")
    final: float = Field(0.0, ge=0, le=1, description="the last rate, as a share of the largest")


class ScheduleConfig(DecayConfig):
    """How long to train, how the learning rates of backbone and rows change, and in which stages."""

    epochs: float = Field(20.0, gt=0, le=1e6, description="of so many images as the set has")
    batch_size: int = Field(512, ge=1, description="of all ranks together")
    stages: tuple[StageConfig, ...] | None = Field(
        None, min_length=1, description="one after the other, over the whole run; left out: all of it is alike"
    )

    @model_validator(mode="after")
    def _refuse_lengths_that_are_not_the_runs(self) -> ScheduleConfig:
        self.stage_shares()
        return self

    def stage_shares(self) -> list[float]:
        """The share of the run that each stage has; ``[1.0]`` without stages. ValueError unless they add up to it."""
        if self.stages is None:
            return [1.0]
        given = [stage.share if stage.epochs is None else stage.epochs / self.epochs for stage in self.stages]
        shares, rests = [share for share in given if share is not None], given.count(None)
        if rests > 1:
            raise ValueError(f"stages: {rests} of them have neither share nor epochs; one may, and takes what is left")
        left = 1.0 - math.fsum(shares)
        if rests and left <= 0:
            raise ValueError(f"stages: the others leave nothing of {self.epochs:g} epochs to the one without a length")
        if not rests and abs(left) > _ROUNDING:
            raise ValueError(
                f"stages: they add up to {math.fsum(shares) * self.epochs:.4g} epochs and the run has {self.epochs:g}; "
                "leave out the length of one, which then takes what is left"
            )
        return [left if share is None else share for share in given]
