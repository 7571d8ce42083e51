"""The section ``objective``: the name of a loss, and the arguments of its constructor as keys.

They stand here a second time, since the losses themselves come with torch, whose import takes seconds that nobody
waits for to learn of a wrong word. A test holds the two against each other: names, defaults, and what is refused.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from launch.config.section import Section

DEFAULT: Final = "adacos"
Scale = Annotated[float, Field(gt=0, le=80, description="of the cosines in the softmax")]  # what float32 carries
NumberOrWord = Annotated[float | str, Field(union_mode="left_to_right")]  # such as the text 3e-4, which is a number


class ObjectiveSection(Section):
    """What the sections of all losses share."""

    name: str

    def arguments(self, num_classes: int) -> dict[str, Any]:
        """The arguments of the loss's constructor."""
        return self.model_dump(exclude={"name"})


class CosineSoftmaxSection(ObjectiveSection):
    """See :class:`partial_fc.CosineSoftmax`."""

    name: Literal["cosine_softmax"]
    scale: Scale


class CosFaceSection(ObjectiveSection):
    """See :class:`partial_fc.CosFace`."""

    name: Literal["cosface"]
    scale: Scale = 64.0
    margin: float = Field(0.4, ge=0, lt=1, description="taken off the target's cosine")


class ArcFaceSection(ObjectiveSection):
    """See :class:`partial_fc.ArcFace`."""

    name: Literal["arcface"]
    scale: Scale = 64.0
    margin: float = Field(0.5, ge=0, lt=math.pi / 2, description="added to the target's angle, in radians")
    straight_through: bool = Field(False, description="the gradient of the widespread port, not the true derivative")


class CombinedMarginSection(ObjectiveSection):
    """See :class:`partial_fc.CombinedMargin`."""

    name: Literal["combined_margin"]
    scale: Scale = 64.0
    m1: float = Field(1.0, ge=1, le=2, description="factor of the target's angle")
    m2: float = Field(0.0, ge=0, lt=math.pi / 2, description="added to that angle, in radians")
    m3: float = Field(0.4, ge=0, lt=1, description="taken off the cosine of the sum")
    filter_above: float | None = Field(
        None, ge=0, lt=1, description="another class nearer than this cosine, as wrong labels make them, does not push"
    )


class AdaCosSection(ObjectiveSection):
    """See :class:`partial_fc.AdaCos`."""

    name: Literal["adacos"] = DEFAULT
    dynamic: bool = Field(True, description="the scale follows the batch; false: it is √2·ln(C-1)")
    statistics: Literal["current", "previous"] = Field(
        "current", description="the batch that a step's scale comes from"
    )
    max_scale: Scale = Field(64.0, description="the scale goes no higher")
    average: Literal["mean", "median"] = Field("mean", description="of the images' sums over the other classes")
    may_fall: bool = Field(True, description="false: the scale never falls")

    def arguments(self, num_classes: int) -> dict[str, Any]:
        """With the number of classes, from which the first scale follows."""
        return {"num_classes": num_classes, **super().arguments(num_classes)}


class P2SGradSection(ObjectiveSection):
    """See :class:`partial_fc.P2SGrad`."""

    name: Literal["p2sgrad"]
    inter_class_weight: NumberOrWord = Field("balanced", description="λ, how hard others push; balanced: kappa·D/C")
    negatives: Literal["all", "beyond_chance"] = Field("all", description="which other classes push an image away")
    pull: Literal["fading", "steady"] = Field("fading", description="the slope at the target: c_y - 1, or -1")
    kappa: float = Field(0.1, gt=0, description="of the balanced weight")
    slope_scale: NumberOrWord = Field("adacos", description="factor of loss and slopes; adacos: √2·ln(C-1)")
    chance_multiple: float = Field(1.0, gt=0, description="of the cosine that is chance, for experiments")

    @field_validator("inter_class_weight", "slope_scale")
    @classmethod
    def _refuse_another_word(cls, given: float | str, info: ValidationInfo) -> float | str:
        word = cls.model_fields[str(info.field_name)].default
        if given != word and (isinstance(given, str) or given <= 0):
            raise ValueError(f"expected {word!r} or a number above 0, got {given!r}")
        return given

    @model_validator(mode="after")
    def _refuse_keys_of_other_negatives(self) -> P2SGradSection:
        if self.negatives == "beyond_chance" and (self.inter_class_weight, self.kappa) != ("balanced", 0.1):
            raise ValueError("inter_class_weight and kappa go with negatives: all: leave them out beyond chance")
        if self.negatives == "all" and self.chance_multiple != 1.0:
            raise ValueError("chance_multiple goes with negatives: beyond_chance: leave it out with all of them")
        return self


ObjectiveConfig = Annotated[
    CosineSoftmaxSection | CosFaceSection | ArcFaceSection | CombinedMarginSection | AdaCosSection | P2SGradSection,
    Field(discriminator="name"),
]
