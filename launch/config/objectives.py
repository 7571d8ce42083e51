"""The losses' own sections of the configuration; ``objective.name`` chooses among them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from launch.config.section import Section
from partial_fc import AdaCos, ArcFace, CosFace, CosineSoftmax, Objective, P2SGrad
from partial_fc.functional.softmax import LARGEST_SCALE

_Scale = Field(gt=0, le=LARGEST_SCALE)


class CosineSoftmaxConfig(Section):
    """NormFace."""

    name: Literal["cosine_softmax"]
    scale: float = _Scale

    def build(self, num_classes: int) -> Objective:
        """The objective itself."""
        return CosineSoftmax(self.scale)


class CosFaceConfig(Section):
    """CosFace."""

    name: Literal["cosface"]
    scale: float = Field(64.0, gt=0, le=LARGEST_SCALE)
    margin: float = Field(0.4, ge=0, lt=1)

    def build(self, num_classes: int) -> Objective:
        """The objective itself."""
        return CosFace(self.scale, self.margin)


class ArcFaceConfig(Section):
    """ArcFace."""

    name: Literal["arcface"]
    scale: float = Field(64.0, gt=0, le=LARGEST_SCALE)
    margin: float = Field(0.5, ge=0, lt=1.57)
    straight_through: bool = Field(False, description="the gradient of the widespread port instead of the true one")

    def build(self, num_classes: int) -> Objective:
        """The objective itself."""
        return ArcFace(self.scale, self.margin, self.straight_through)


class AdaCosConfig(Section):
    """AdaCos."""

    name: Literal["adacos"] = "adacos"
    dynamic: bool = True
    statistics: Literal["current", "previous"] = "current"
    max_scale: float = Field(64.0, gt=0, le=LARGEST_SCALE)

    def build(self, num_classes: int) -> Objective:
        """The objective itself."""
        return AdaCos(num_classes, dynamic=self.dynamic, statistics=self.statistics, max_scale=self.max_scale)


class P2SGradConfig(Section):
    """P2SGrad."""

    name: Literal["p2sgrad"]
    inter_class_weight: Literal["balanced"] | float = Field("balanced", description="1.0 is the paper")
    kappa: float = Field(0.1, ge=0)
    slope_scale: Literal["adacos"] | float = Field("adacos", description="1.0 is the paper")

    def build(self, num_classes: int) -> Objective:
        """The objective itself."""
        return P2SGrad(self.inter_class_weight, kappa=self.kappa, slope_scale=self.slope_scale)


ObjectiveConfig = CosineSoftmaxConfig | CosFaceConfig | ArcFaceConfig | AdaCosConfig | P2SGradConfig
