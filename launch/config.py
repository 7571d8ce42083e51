"""The run's configuration: YAML over typed models, one per component, that refuse what they do not know.

A file holds only what differs from the defaults. ``--set a.b=c`` overrides one value. The resolved whole is written
beside the run and reads back as the same configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator
from torch import nn

from launch.config_augmentation import AugmentationConfig
from launch.config_classifier import ClassifierConfig, DecayConfig
from launch.config_objectives import AdaCosConfig, ObjectiveConfig
from launch.config_section import Section
from partial_fc.backbones import BACKBONES, backbone
from partial_fc.objectives import OBJECTIVES


class ConfigError(Exception):
    """A configuration that cannot be used: the message names the key and what to do. Raised before any rank starts."""


class DataConfig(Section):
    """Where the images lie and how they are read."""

    train: Path | tuple[Path, ...] = Field(
        description="a set of images, in any form that data_pipeline/open_source.py knows, or a list of sets"
    )
    join: Literal["offset", "merge"] = Field(
        "offset", description="several sets: every identity is in one alone, or the same one may be in several"
    )
    evaluate: Path | None = Field(None, description="held-out identities, in any of these forms")
    image_column: str | None = Field(None, description="of .parquet and .arrow; left out: told by its name and type")
    label_column: str | None = Field(None, description="likewise")
    num_classes: int | None = Field(None, ge=2, description="checked against the data; taken from it when left out")
    num_images: int | None = Field(None, ge=1, description="likewise")
    image_size: int = Field(112, ge=8, description="side in pixels")
    fill: int = Field(0, ge=0, le=255, description="what lies outside a warped image")
    label_noise: float = Field(0.0, ge=0, le=1, description="share of training labels replaced by wrong ones")
    least_images_per_identity: int = Field(1, ge=1, description="identities with fewer are left out, labels renumbered")
    images_per_identity_in_batch: int | None = Field(
        None, ge=1, description="so many images of each identity of a batch; left out: all images shuffled"
    )
    quarantine: Path | None = Field(
        None, description="a list written by partial-fc verify: these images are replaced by others from the start"
    )
    most_bad_images: float = Field(
        0.01, ge=0, le=1, description="share of the images seen above which a run ends; ten are allowed, with 0 none"
    )
    decode_threads: int = Field(1, ge=1, description="per rank")
    augmentation: AugmentationConfig = AugmentationConfig(mirror=0.5)

    @field_validator("train", mode="before")
    @classmethod
    def _refuse_what_is_no_path(cls, given: Any) -> Any:
        """Say in one sentence what pydantic says once for each kind of value that is allowed."""
        paths = given if isinstance(given, list | tuple) else [given]
        if not paths or not all(isinstance(path, str | Path) and str(path) for path in paths):
            raise ValueError(f"expected a path or a list of paths, got {given!r}")
        return given


class BackboneConfig(Section):
    """The network between image and embedding."""

    name: Literal["r18", "r34", "r50", "r100", "r200", "mbf"] = "r50"
    embedding_dim: int = Field(512, ge=2)
    width: int = Field(64, ge=4, description="channels of the first stage; 64 is the published network")
    dropout: float = Field(0.0, ge=0, lt=1)
    checkpoint_activations: bool = Field(False, description="less memory for a third more time")
    compile: Literal["auto", True, False] = Field("auto", description="torch.compile; auto: where a compiler is found")
    autocast: Literal["bfloat16", "float32"] = "bfloat16"
    weights: Path | None = Field(None, description="a state dict to start from: ours or arcface_torch's")

    def build(self, input_size: int) -> nn.Module:
        """The network for images of ``input_size`` pixels, with first weights; it loads nothing."""
        return backbone(
            self.name,
            embedding_dim=self.embedding_dim,
            input_size=input_size,
            width=self.width,
            dropout=self.dropout,
            checkpoint_activations=self.checkpoint_activations,
        )


class OptimizerConfig(Section):
    """The backbone's optimizer. Biases, BatchNorm and PReLU weights are not decayed."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's; beta 1 of AdamW")
    weight_decay: float = Field(5e-4, ge=0)
    clip_norm: float | None = Field(5.0, gt=0, description="of the backbone's whole gradient, over all ranks")


class ScheduleConfig(DecayConfig):
    """How long to train and how the learning rates of backbone and rows change."""

    epochs: float = Field(20.0, gt=0)
    batch_size: int = Field(512, ge=1, description="of all ranks together")


class ReportConfig(Section):
    """What the run tells about itself, and when."""

    every_steps: int = Field(20, ge=1)
    prometheus: bool = True
    address: str = "127.0.0.1"
    port: int = Field(9410, ge=0, le=65535, description="of local rank 0; each further rank adds one; 0: any free one")


class Config(Section):
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
