"""The classifier's section of the configuration: its arithmetic, and the optimizer and schedule of its rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from launch.config.schedule import DecayConfig
from launch.config.section import Section, UserPath


class ClassifierConfig(Section):
    """The sharded classifier and the steps of its rows."""

    sample_rate: float = Field(1.0, gt=0, le=1, description="chance of a class that is not in the batch to take part")
    block_classes: int | None = Field(None, ge=1, description="width of a block; null: what a cache holds")
    products: Literal["float32", "tf32", "bfloat16"] = Field("float32", description="of embeddings and rows")
    weights: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16 is rounded stochastically")
    rows: UserPath | None = Field(None, description="a run or a checkpoint: its class rows to start from, by identity")
    cosines: Literal["recompute", "keep", "auto"] = Field(
        "auto", description="between a softmax's sweeps; int8 rows between steps"
    )
    near: Literal["auto", "always", "never"] = Field(
        "auto", description="P2SGrad beyond chance by one look at all classes: on CPUs; always: on GPUs too"
    )
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="of the rows")
    learning_rate: float = Field(0.005, gt=0, description="of the rows; SGD's per positive, whatever the batch size")
    momentum: float = Field(0.0, ge=0, lt=1, description="SGD's")
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's")
    clip: float = Field(
        0.0, ge=0, description="of a row's gradient: at most so many of one image's steepest slopes; 0: none"
    )
    weight_decay: float = Field(0.0, ge=0, description="of unit rows: it lengthens their steps, no more")
    state: Literal["float32", "bfloat16"] = Field("float32", description="momentum and moments; likewise rounded")
    schedule: DecayConfig | None = Field(None, description="of the rows' learning rate; left out: the backbone's")

    @model_validator(mode="after")
    def _refuse_what_the_optimizer_lacks(self) -> ClassifierConfig:
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError("momentum is SGD's: AdamW's is the first of betas")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected two numbers in [0, 1), got {self.betas}")
        return self
