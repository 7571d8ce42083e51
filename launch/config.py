"""The run's configuration: YAML over typed models, one per component, that refuse what they do not know.

A file holds only what differs from the defaults. ``--set a.b=c`` overrides one value. The resolved whole is written
beside the run and reads back as the same configuration.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from partial_fc import AdaCos, ArcFace, CosFace, CosineSoftmax, Objective, P2SGrad
from partial_fc.backbones import BACKBONES
from partial_fc.functional.softmax import LARGEST_SCALE
from partial_fc.objectives import OBJECTIVES

_Scale = Field(gt=0, le=LARGEST_SCALE)


class ConfigError(Exception):
    """A configuration that cannot be used: the message names the key and what to do. Raised before any rank starts."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:
        """Say what pydantic's own refusal does not: the nearest key that this section has. An empty section is one."""
        if given is None:
            return {}
        unknown = [str(key) for key in given if key not in cls.model_fields] if isinstance(given, dict) else []
        if unknown:
            refusals = (f"unknown key {key!r}, the nearest is {_nearest(key, cls)!r}" for key in unknown)
            raise ValueError("; ".join(refusals))
        return given


def _nearest(key: str, section: type[BaseModel]) -> str:
    return difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.0)[0]


class AugmentationConfig(_Section):
    """Random changes of a training image; each is drawn evenly from ± its value. Zero means never."""

    mirror: float = Field(0.0, ge=0, le=1, description="probability of a left-right flip")
    rotate_degrees: float = Field(0.0, ge=0, le=180)
    scale: float = Field(0.0, ge=0, lt=1, description="as a share of the size")
    shear: float = Field(0.0, ge=0, lt=1)
    translate: float = Field(0.0, ge=0, lt=1, description="as a share of the side")


class DataConfig(_Section):
    """Where the images lie and how they are read."""

    train: Path = Field(description="a .rec file with its .idx, or the folder that holds train.rec and train.idx")
    evaluate: Path | None = Field(None, description="held-out identities, in the same format")
    num_classes: int | None = Field(None, ge=2, description="checked against the data; taken from it when left out")
    num_images: int | None = Field(None, ge=1, description="likewise")
    image_size: int = Field(112, ge=8, description="side in pixels")
    fill: int = Field(0, ge=0, le=255, description="what lies outside a warped image")
    label_noise: float = Field(0.0, ge=0, le=1, description="share of training labels replaced by wrong ones")
    decode_threads: int = Field(1, ge=1, description="per rank")
    augmentation: AugmentationConfig = AugmentationConfig(mirror=0.5)


class BackboneConfig(_Section):
    """The network between image and embedding."""

    name: Literal["r18", "r34", "r50", "r100", "r200", "mbf"] = "r50"
    embedding_dim: int = Field(512, ge=2)
    width: int = Field(64, ge=4, description="channels of the first stage; 64 is the published network")
    dropout: float = Field(0.0, ge=0, lt=1)
    checkpoint_activations: bool = Field(False, description="less memory for a third more time")
    compile: Literal["auto", True, False] = Field("auto", description="torch.compile; auto: where a compiler is found")
    autocast: Literal["bfloat16", "float32"] = "bfloat16"
    weights: Path | None = Field(None, description="a state dict to start from: ours or arcface_torch's")


class CosineSoftmaxConfig(_Section):
    """NormFace."""

    name: Literal["cosine_softmax"]
    scale: float = _Scale

    def build(self, num_classes: int) -> Objective:
        """The objective itself."""
        return CosineSoftmax(self.scale)


class CosFaceConfig(_Section):
    """CosFace."""

    name: Literal["cosface"]
    scale: float = Field(64.0, gt=0, le=LARGEST_SCALE)
    margin: float = Field(0.4, ge=0, lt=1)

    def build(self, num_classes: int) -> Objective:
        """The objective itself."""
        return CosFace(self.scale, self.margin)


class ArcFaceConfig(_Section):
    """ArcFace."""

    name: Literal["arcface"]
    scale: float = Field(64.0, gt=0, le=LARGEST_SCALE)
    margin: float = Field(0.5, ge=0, lt=1.57)
    straight_through: bool = Field(False, description="the gradient of the widespread port instead of the true one")

    def build(self, num_classes: int) -> Objective:
        """The objective itself."""
        return ArcFace(self.scale, self.margin, self.straight_through)


class AdaCosConfig(_Section):
    """AdaCos."""

    name: Literal["adacos"] = "adacos"
    dynamic: bool = True
    statistics: Literal["current", "previous"] = "current"
    max_scale: float = Field(64.0, gt=0, le=LARGEST_SCALE)

    def build(self, num_classes: int) -> Objective:
        """The objective itself."""
        return AdaCos(num_classes, dynamic=self.dynamic, statistics=self.statistics, max_scale=self.max_scale)


class P2SGradConfig(_Section):
    """P2SGrad."""

    name: Literal["p2sgrad"]
    inter_class_weight: Literal["balanced"] | float = Field("balanced", description="1.0 is the paper")
    kappa: float = Field(0.1, ge=0)
    slope_scale: Literal["adacos"] | float = Field("adacos", description="1.0 is the paper")

    def build(self, num_classes: int) -> Objective:
        """The objective itself."""
        return P2SGrad(self.inter_class_weight, kappa=self.kappa, slope_scale=self.slope_scale)


ObjectiveConfig = CosineSoftmaxConfig | CosFaceConfig | ArcFaceConfig | AdaCosConfig | P2SGradConfig


class ClassifierConfig(_Section):
    """The sharded classifier and the steps of its rows."""

    sample_rate: float = Field(1.0, gt=0, le=1)
    block_classes: int | None = Field(None, ge=1)
    learning_rate: float = Field(0.01, gt=0, description="of the rows, per positive: independent of the batch size")
    momentum: float = Field(0.0, ge=0, lt=1)


class OptimizerConfig(_Section):
    """The backbone's optimizer. Biases, BatchNorm and PReLU weights are not decayed."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's; beta 1 of AdamW")
    weight_decay: float = Field(5e-4, ge=0)
    clip_norm: float | None = Field(5.0, gt=0, description="of the backbone's whole gradient, over all ranks")


class ScheduleConfig(_Section):
    """How long to train and how the learning rates of backbone and rows change."""

    epochs: float = Field(20.0, gt=0)
    batch_size: int = Field(512, ge=1, description="of all ranks together")
    warmup_epochs: float = Field(1.0, ge=0)
    decay: Literal["polynomial", "cosine"] = "polynomial"
    power: float = Field(2.0, gt=0)
    final: float = Field(0.0, ge=0, le=1)


class ReportConfig(_Section):
    """What the run tells about itself, and when."""

    every_steps: int = Field(20, ge=1)
    prometheus: bool = True
    address: str = "127.0.0.1"
    port: int = Field(9410, ge=0, le=65535, description="of local rank 0; each further rank adds one; 0: any free one")


class Config(_Section):
    """A whole run."""

    run_dir: Path = Path("runs/partial_fc")
    seed: int = Field(0, ge=0)
    save_every_steps: int | None = Field(None, ge=1, description="also save on the way; the end is always saved")
    data: DataConfig
    backbone: BackboneConfig = BackboneConfig()
    objective: ObjectiveConfig = Field(AdaCosConfig(), discriminator="name")
    classifier: ClassifierConfig = ClassifierConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    report: ReportConfig = ReportConfig()

    @field_validator("objective", mode="before")
    @classmethod
    def _name_the_default(cls, given: Any) -> Any:
        """Let ``objective: {max_scale: 30}`` mean AdaCos, as leaving the section out does."""
        return {"name": AdaCosConfig().name, **given} if isinstance(given, dict) else given


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in ``path`` with ``a.b=c`` overrides applied. ConfigError for anything it cannot use."""
    try:
        tree = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections (key: value), got {type(tree).__name__}")
    for override in overrides:
        _apply_override(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(_explained(error))) from error


def resolved_yaml(config: Config) -> str:
    """The whole configuration, defaults included, as YAML that :func:`load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected KEY=VALUE, such as schedule.epochs=3")
    *sections, name = key.split(".")
    node = tree
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override}: {section} is a value, not a section")
    try:
        node[name] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value") from error


def _explained(error: ValidationError) -> Iterable[str]:
    for problem in error.errors():
        # Between "objective" and its keys pydantic puts the objective's name, which is no part of the key.
        key = ".".join(str(part) for part in problem["loc"] if part not in OBJECTIVES)
        if problem["type"] == "missing":
            yield f"{key!r} is missing"
        elif problem["type"] == "value_error":
            yield f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"])
        else:
            yield f"{key}: {problem['msg']}, got {problem['input']!r}"


assert set(BackboneConfig.model_fields["name"].annotation.__args__) == set(BACKBONES)  # type: ignore[union-attr]
