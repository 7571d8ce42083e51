"""The sections of a run's configuration that no library is asked about: what is wrong with them is said at once."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from launch.config.classifier import ClassifierConfig
from launch.config.data import DataConfig
from launch.config.schedule import ScheduleConfig
from launch.config.section import Section, UserPath

NETWORKS = (  # those of partial_fc.backbones, whose import takes seconds; a test compares the two
    *("r18", "r34", "r50", "r100", "r200", "mbf", "mbf_large"),
    *("vit_t", "vit_s", "vit_b", "vit_l", "vit_h", "r2060"),
)


class BackboneConfig(Section):
    """The network between image and embedding."""

    name: str = "r50"
    embedding_dim: int = Field(512, ge=2)
    width: int = Field(64, ge=4, description="channels of the first stage; 64 is the published network")
    dropout: float = Field(0.0, ge=0, lt=1)
    drop_path: float | None = Field(None, ge=0, lt=1, description="a vit's; left out: the published network's")
    mask_ratio: float | None = Field(None, ge=0, lt=1, description="likewise: the share of tokens hidden in training")
    checkpoint_activations: bool = Field(False, description="less memory for a third more time")
    compile: Literal["auto", True, False] = Field("auto", description="torch.compile; auto: where a compiler is found")
    autocast: Literal["bfloat16", "float32"] = "bfloat16"
    weights: UserPath | None = Field(
        None, description="to start from: a run's folder or a state dict, ours or arcface_torch's"
    )

    @field_validator("name")
    @classmethod
    def _refuse_an_unknown_name(cls, given: str) -> str:
        if given not in NETWORKS:
            nearest = get_close_matches(given, NETWORKS, n=1, cutoff=0.0)[0]
            raise ValueError(f"no backbone is called {given!r}; the nearest is {nearest!r} of {', '.join(NETWORKS)}")
        return given

    def options(self) -> dict[str, float]:
        """The options of the network's own family that are given."""
        given = {"drop_path": self.drop_path, "mask_ratio": self.mask_ratio}
        return {name: value for name, value in given.items() if value is not None}


class OptimizerConfig(Section):
    """The backbone's optimizer. Biases, BatchNorm and PReLU weights are not decayed."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's; beta 1 of AdamW")
    weight_decay: float = Field(5e-4, ge=0)
    clip_norm: float | None = Field(5.0, gt=0, description="of the backbone's whole gradient, over all ranks")


class ReportConfig(Section):
    """What the run tells about itself, and when."""

    every_steps: int = Field(20, ge=1)
    prometheus: bool = True
    tensorboard: bool = Field(False, description="event files in run_dir/tensorboard; needs the package tensorboard")
    address: str = "127.0.0.1"
    port: int = Field(9410, ge=0, le=65535, description="of local rank 0; each further rank adds one; 0: any free one")


class CheckpointConfig(Section):
    """How checkpoints are written, and which are kept."""

    keep_last: int = Field(3, ge=1)
    keep_every_steps: int | None = Field(None, ge=1, description="besides, those of every so many steps")
    in_background: Literal["auto", True, False] = Field(
        "auto", description="write beside the training, for a second copy in memory; auto: where there is room for it"
    )


class PlainConfig(Section):
    """A whole run, but for the objective, whose keys are the arguments of a loss."""

    run_dir: UserPath = Path("runs/partial_fc")
    seed: int = Field(0, ge=0)
    resume: Literal["auto", "never", "changed"] = Field(
        "auto", description="go on with the run in run_dir; never: begin anew; changed: go on though the config differs"
    )
    save_every_steps: int | None = Field(None, ge=1, description="also save on the way; the end is always saved")
    checkpoint: CheckpointConfig = CheckpointConfig()
    data: DataConfig
    backbone: BackboneConfig = BackboneConfig()
    objective: Any = None
    classifier: ClassifierConfig = ClassifierConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    report: ReportConfig = ReportConfig()
