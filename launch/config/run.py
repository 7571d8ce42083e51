"""The run's configuration: YAML over typed models, one per component, that refuse what they do not know.

A file holds only what differs from the defaults. ``--set a.b=c`` overrides one value. The resolved whole is written
beside the run and reads back as the same configuration. Nothing here imports torch: a refusal is said at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from launch.config.backbone import BackboneConfig
from launch.config.classifier import ClassifierConfig
from launch.config.data import DataConfig
from launch.config.evaluation import EvaluationConfig, known_measures, set_name
from launch.config.objectives import DEFAULT, AdaCosSection, ObjectiveConfig
from launch.config.schedule import ScheduleConfig
from launch.config.section import Section, UserPath


class OptimizerConfig(Section):
    """The backbone's optimizer."""

    name: Literal["sgd", "adamw", "apex_sgd", "apex_adamw", "apex_lamb"] = Field(
        "sgd", description="torch's own, or fused ones of NVIDIA's apex, where it is installed"
    )
    learning_rate: float = Field(0.1, gt=0, description="the largest of the run; schedule says how it changes")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's; beta 1 of AdamW and LAMB")
    nesterov: bool = Field(True, description="SGD's momentum looks ahead")
    weight_decay: float = Field(5e-4, ge=0, description="of what decays says")
    decays: Literal["matrices", "all"] = Field(
        "matrices", description="what weight_decay shortens; all: biases, BatchNorm and PReLU weights too"
    )
    clip_norm: float | None = Field(5.0, gt=0, description="of the backbone's whole gradient, over all ranks")
    larc: float | None = Field(
        None,
        gt=0,
        description="trust of apex's LARC around SGD: the rate of each tensor is at most so many norms of it",
    )

    @property
    def rule(self) -> str:
        """By which weights are updated, whosever kernels do it: ``sgd``, ``adamw`` or ``lamb``."""
        return self.name.removeprefix("apex_")

    @property
    def moments(self) -> int:
        """How many numbers are kept of each weight."""
        return int(self.momentum > 0 or self.name == "apex_sgd") if self.rule == "sgd" else 2

    @model_validator(mode="after")
    def _refuse_larc_of_others(self) -> OptimizerConfig:
        if self.larc is not None and self.rule != "sgd":
            raise ValueError(f"larc goes with sgd and apex_sgd, not with {self.name}: apex_lamb is its like for AdamW")
        return self


class TLSConfig(Section):
    """PEM files of the metrics endpoints, whose answers are encrypted then."""

    certificate: UserPath = Field(description="what an endpoint shows to those who ask")
    key: UserPath = Field(description="of that certificate")
    clients: UserPath | None = Field(None, description="of those who sign for whoever may ask; null: everybody may")


class ReportConfig(Section):
    """What the run tells about itself, and when."""

    every_steps: int = Field(20, ge=1, description="a line on the screen and in metrics.jsonl after so many steps")
    prometheus: bool = Field(True, description="serve metrics, one endpoint for each rank")
    tensorboard: bool = Field(False, description="event files in run_dir/tensorboard; needs the package tensorboard")
    address: str = Field("127.0.0.1", description="where the endpoints listen; 0.0.0.0: for other machines too")
    port: int = Field(9410, ge=0, le=65535, description="of local rank 0; each further rank adds one; 0: any free one")
    tls: TLSConfig | None = Field(None, description="PEM files for the endpoints; null: they answer in the clear")
    targets: UserPath | None = Field(
        None, description="a folder for the list of endpoints that Prometheus reads, as RUN.json; null: in run_dir"
    )


class CheckpointConfig(Section):
    """How checkpoints are written, and which are kept."""

    keep_last: int = Field(3, ge=1, description="so many of the last checkpoints")
    keep_every_steps: int | None = Field(None, ge=1, description="besides, those of every so many steps")
    in_background: Literal["auto", True, False] = Field(
        "auto", description="write beside the training, for a second copy in memory; auto: where there is room for it"
    )


class DivergenceConfig(Section):
    """Which steps update no weight, and how many of them end the run; a loss that is not finite is always skipped."""

    most_skipped: int = Field(10, ge=0, description="of the last 1,000 steps; one more ends the run")
    spike: float | None = Field(
        20.0, gt=0, description="skip a loss so many mean deviations above the running mean; null: only if not finite"
    )


class WatchdogConfig(Section):
    """How long each part of a run may take before its process is taken to hang and ended; null: for ever."""

    start_seconds: float | None = Field(1800.0, gt=0, le=1e7, description="to the end of the first step, a stage's too")
    step_seconds: float | None = Field(600.0, gt=0, le=1e7, description="the wait for its images and a report included")
    save_seconds: float | None = Field(1800.0, gt=0, le=1e7, description="the wait for the save before included")
    evaluation_seconds: float | None = Field(14400.0, gt=0, le=1e7, description="of all held-out images, each time")


class Config(Section):
    """A whole run."""

    run_dir: UserPath = Field(Path("runs/partial_fc"), description="the folder for all that the run leaves")
    seed: int = Field(0, ge=0, description="of all that is drawn: first weights, order, augmentation, classes")
    resume: Literal["auto", "never", "changed"] = Field(
        "auto",
        description="go on with the run in run_dir; never: begin anew; changed: go on though the config or the set "
        "differs, each identity with its class row",
    )
    save_every_steps: int | None = Field(5000, ge=1, description="also save on the way; null: at the end alone")
    checkpoint: CheckpointConfig = CheckpointConfig()
    data: DataConfig
    backbone: BackboneConfig = BackboneConfig()
    objective: ObjectiveConfig = Field(AdaCosSection(), description="the loss, by its name, with the keys it has")
    classifier: ClassifierConfig = ClassifierConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    divergence: DivergenceConfig = DivergenceConfig()
    watchdog: WatchdogConfig = WatchdogConfig()
    report: ReportConfig = ReportConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _refuse_what_is_not_measured(self) -> Config:
        """ValueError where ``evaluation.best`` names no set or no measure of it, and where there is no set at all."""
        paths = [*([self.data.evaluate] if self.data.evaluate else []), *self.evaluation.sets]
        names = [set_name(path) for path in paths]
        if len(names) != len(set(names)):
            raise ValueError(f"evaluation.sets: one is called {names[0]}, as data.evaluate is; rename one")
        known = [f"{set_name(path)}.{measure}" for path in paths for measure in known_measures(path)]
        best = self.evaluation.best
        if best is not None and best not in known:
            raise ValueError(f"evaluation.best: {best!r} is not measured; expected one of {', '.join(known) or 'none'}")
        if self.evaluation.every_steps is not None and not paths:
            raise ValueError("evaluation.every_steps: nothing can be measured: give data.evaluate or evaluation.sets")
        return self

    @field_validator("objective", mode="before")
    @classmethod
    def _name_the_default(cls, given: Any) -> Any:
        """Let ``objective: {max_scale: 30}`` mean AdaCos, as leaving the section out does."""
        return {"name": DEFAULT, **given} if isinstance(given, dict) else given
