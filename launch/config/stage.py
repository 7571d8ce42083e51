"""An entry of ``schedule.stages``: how long a stage of the run is, and what changes when it begins."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from launch.config.augmentation import AugmentationConfig
from launch.config.objectives import ObjectiveConfig
from launch.config.section import Section


class StageClassifierConfig(Section):
    """What a stage changes of the section ``classifier``."""

    sample_rate: float | None = Field(None, gt=0, le=1, description="share of the classes; left out: as before")
    learning_rate: float | None = Field(None, gt=0, description="the largest of the run; its schedule goes on")
    clip: float | None = Field(None, ge=0, description="0: none from here on; left out: as before")


class StageOptimizerConfig(Section):
    """What a stage changes of the section ``optimizer``."""

    learning_rate: float | None = Field(None, gt=0, description="the largest of the run; its schedule goes on")


class StageConfig(Section):
    """A part of the run. What it changes holds from its first step on, in the stages after it too."""

    share: float | None = Field(None, gt=0, lt=1, description="of the run's steps")
    epochs: float | None = Field(None, gt=0, description="instead of share; one stage may have neither: the rest")
    objective: ObjectiveConfig | None = Field(None, description="a whole section; left out: as before")
    classifier: StageClassifierConfig = StageClassifierConfig()
    optimizer: StageOptimizerConfig = StageOptimizerConfig()
    augmentation: AugmentationConfig | None = Field(None, description="as data.augmentation, a whole section")

    @field_validator("objective", mode="before")
    @classmethod
    def _refuse_one_without_a_name(cls, given: Any) -> Any:
        """Say that no key of the objective before is kept: a new margin alone would otherwise be one of AdaCos."""
        if isinstance(given, dict) and "name" not in given:
            raise ValueError("expected the objective's name beside its keys: a stage's objective is a whole section")
        return given

    @model_validator(mode="after")
    def _refuse_two_lengths(self) -> StageConfig:
        if self.share is not None and self.epochs is not None:
            raise ValueError("give share or epochs, not both")
        return self
