"""The losses' own sections of the configuration; ``objective.name`` chooses among them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from launch.config.section import Section
from partial_fc.functional.softmax import LARGEST_SCALE

_Scale = Field(gt=0, le=LARGEST_SCALE)


class CosineSoftmaxConfig(Section):
    """NormFace."""

    name: Literal["cosine_softmax"]
    scale: float = _Scale


class CosFaceConfig(Section):
    """CosFace."""

    name: Literal["cosface"]
    scale: float = Field(64.0, gt=0, le=LARGEST_SCALE)
    margin: float = Field(0.4, ge=0, lt=1)


class ArcFaceConfig(Section):
    """ArcFace."""

    name: Literal["arcface"]
    scale: float = Field(64.0, gt=0, le=LARGEST_SCALE)
    margin: float = Field(0.5, ge=0, lt=1.57)
    straight_through: bool = Field(False, description="the gradient of the widespread port instead of the true one")


class AdaCosConfig(Section):
    """AdaCos."""

    name: Literal["adacos"] = "adacos"
    dynamic: bool = True
    statistics: Literal["current", "previous"] = "current"
    max_scale: float = Field(64.0, gt=0, le=LARGEST_SCALE)


class P2SGradConfig(Section):
    """P2SGrad."""

    name: Literal["p2sgrad"]
    inter_class_weight: Literal["balanced"] | float = Field("balanced", description="1.0 is the paper")
    kappa: float = Field(0.1, ge=0)
    slope_scale: Literal["adacos"] | float = Field("adacos", description="1.0 is the paper")


ObjectiveConfig = CosineSoftmaxConfig | CosFaceConfig | ArcFaceConfig | AdaCosConfig | P2SGradConfig
