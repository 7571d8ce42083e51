"""What one benchmark of the classifier measures: sizes, numbers' formats, and whom it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch

from benchmarks.classifier.floors import Work
from partial_fc.objectives import AdaCos, ArcFace, CosFace, CosineSoftmax, Objective, P2SGrad

OURS, DENSE = "ours", "dense"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ROW_OPTIMIZERS = ("sgd", "adamw", "none")
DEVICES = ("cpu", "cuda")
OBJECTIVES: dict[str, Callable[[int], Objective]] = {
    "p2sgrad": lambda num_classes: P2SGrad(),
    "adacos": lambda num_classes: AdaCos(num_classes),
    "adacos_fixed": lambda num_classes: AdaCos(num_classes, dynamic=False),
    "cosface": lambda num_classes: CosFace(64.0, 0.4),
    "arcface": lambda num_classes: ArcFace(64.0, 0.5),
    "cosine_softmax": lambda num_classes: CosineSoftmax(64.0),
}
CHOICES = {
    "objective": tuple(OBJECTIVES),
    "dtype": tuple(DTYPES),
    "weight_dtype": tuple(DTYPES),
    "state_dtype": tuple(DTYPES),
    "against_dtype": tuple(DTYPES),
    "device": DEVICES,
    "cosines": ("auto", "keep", "recompute"),
    "gram": ("auto", "always", "never"),
    "row_optimizer": ROW_OPTIMIZERS,
}


@dataclass(frozen=True)
class Case:
    """One comparison, or one measurement where `against` is None. `batch` is the global one, over all ranks.

    `dtype` is that of the big products, `weight_dtype` that of the rows, `state_dtype` that of the row optimizer's
    moments. `against` is "dense", "PATH:CLASS", or "ours" again over `against_num_classes`; its own rate is
    `against_sample_rate`, by default ours.
    """

    objective: str
    num_classes: int
    embedding_dim: int = 512
    batch: int = 512
    sample_rate: float = 1.0
    world: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    weight_dtype: str = "float32"
    cosines: str = "auto"
    gram: str = "auto"
    row_optimizer: str = "sgd"
    momentum: float = 0.9
    state_dtype: str = "float32"
    steps: int = 5
    warm_up: int = 1
    steps_per_turn: int = 1
    against: str | None = None
    against_num_classes: int | None = None
    against_sample_rate: float | None = None
    against_dtype: str = "float32"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(choices)}")
        counts = ("num_classes", "embedding_dim", "batch", "world", "steps", "warm_up", "steps_per_turn")
        for name in (*counts, *(["against_num_classes"] if self.against_num_classes is not None else [])):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1")
        for name in ("sample_rate", "against_sample_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0.0 < rate <= 1.0:
                raise ValueError(f"{name}={rate}: expected 0 < {name} <= 1")
        if self.batch % self.world:
            raise ValueError(f"batch={self.batch}: expected a multiple of world={self.world}; it is the global batch")
        if self.against not in (None, DENSE, OURS) and ":" not in str(self.against):
            raise ValueError(
                f"against={self.against!r}: expected 'dense', 'ours' or PATH:CLASS, such as heads/mine.py:MyHead"
            )
        if (self.against == OURS) != (self.against_num_classes is not None):
            raise ValueError(
                f"against={self.against!r}, against_num_classes={self.against_num_classes}: expected a number of "
                f"classes where against is 'ours', and only there"
            )

    @property
    def rate_against(self) -> float:
        """The sampling rate of the other contender."""
        return self.sample_rate if self.against_sample_rate is None else self.against_sample_rate

    @property
    def case_against(self) -> Case:
        """The case as the other contender meets it."""
        return replace(self, num_classes=self.against_num_classes) if self.against_num_classes else self

    @property
    def work(self) -> Work:
        """One of our steps, as far as its floors depend on it."""
        element_bytes = {name: dtype.itemsize for name, dtype in DTYPES.items()}
        return Work(
            is_quadratic=self.objective == "p2sgrad",
            num_rows=self.batch,
            num_classes=self.num_classes,
            embedding_dim=self.embedding_dim,
            sample_rate=self.sample_rate,
            product_dtype=self.dtype,
            weight_bytes=element_bytes[self.weight_dtype],
            state_bytes=self.moments * element_bytes[self.state_dtype],
        )

    @property
    def moments(self) -> int:
        """How many numbers the row optimizer keeps for each element of the weights."""
        return 2 if self.row_optimizer == "adamw" else int(self.momentum > 0)

    @property
    def needed_bytes(self) -> float:
        """A generous guess of what all contenders and ranks hold together at their peaks: a guard, not a measurement.

        The dense one: weights, momentum, gradient and two more of their size in the making of it; of the matrix of
        logits four.
        """
        ours = self.work.held_bytes * (3.0 if self.row_optimizer == "none" else 1.25)
        ours += 4.0 * self.batch * self.num_classes if self.cosines == "keep" else 0.0
        if self.against is None:
            return ours
        if self.against_num_classes is not None:
            return ours * (1 + self.against_num_classes / self.num_classes)
        drawn = self.num_classes * self.rate_against
        weights = 4.0 * self.embedding_dim * (3 * self.num_classes + 2 * drawn)
        return ours + weights + 16.0 * self.batch * drawn

    def command(self) -> str:
        """The command line that measures this, with what is not the default."""
        words = ["python -m benchmarks.classifier"]
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                words.append(f"--{field.name.replace('_', '-')} {value}")
        return " ".join(words)
