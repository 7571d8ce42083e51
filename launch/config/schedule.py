"""The section `schedule`: how long, how much at once, and how the learning rates fall."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from launch.config.section import Section


class DecayConfig(Section):
    """How a learning rate changes over the run: a warm-up, then a fall."""

    warmup_epochs: float = Field(1.0, ge=0)
    decay: Literal["polynomial", "cosine"] = "polynomial"
    power: float = Field(2.0, gt=0)
    final: float = Field(0.0, ge=0, le=1)


class ScheduleConfig(DecayConfig):
    """How long to train and how the learning rates of backbone and rows change."""

    epochs: float = Field(20.0, gt=0, le=1e6)
    batch_size: int = Field(512, ge=1, description="of all ranks together")
