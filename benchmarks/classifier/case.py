"""What one benchmark of the classifier measures: sizes, numbers' formats, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import torch

from partial_fc.objectives import AdaCos, ArcFace, CosFace, CosineSoftmax, Objective, P2SGrad

OURS, DENSE, CHUNKED = "ours", "dense", "chunked"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ROW_OPTIMIZERS = ("sgd", "adamw", "none")
DEVICES = ("cpu", "cuda")
COSINES = ("auto", "keep", "recompute")
ROADS = ("auto", "always", "never")
OBJECTIVES: dict[str, Callable[[int], Objective]] = {
    "p2sgrad": lambda num_classes: P2SGrad(),
    "p2sgrad_beyond_chance": lambda num_classes: P2SGrad(negatives="beyond_chance"),
    "adacos": lambda num_classes: AdaCos(num_classes),
    "adacos_fixed": lambda num_classes: AdaCos(num_classes, dynamic=False),
    "cosface": lambda num_classes: CosFace(64.0, 0.4),
    "arcface": lambda num_classes: ArcFace(64.0, 0.5),
    "cosine_softmax": lambda num_classes: CosineSoftmax(64.0),
}


@dataclass(frozen=True)
class Case:
    """One comparison, or one measurement where `against` is None. `batch` is the global one, over all ranks.

    Each field is an option of the command line: its choices, where they are few, and its help stand beside its type.
    ValueError for what cannot be measured.
    """

    objective: Annotated[str, OBJECTIVES, "the loss of our classifier"]
    num_classes: Annotated[int, "C, over all ranks"]
    embedding_dim: Annotated[int, "D"] = 512
    batch: Annotated[int, "N, the global batch: each rank brings N / world rows"] = 512
    sample_rate: Annotated[float, "the share of classes that a step looks at"] = 1.0
    world: Annotated[int, "ranks: processes over gloo on CPUs, whose threads they share; NCCL on GPUs"] = 1
    device: Annotated[str, DEVICES, "where"] = "cpu"
    dtype: Annotated[str, DTYPES, "of the big products"] = "float32"
    weight_dtype: Annotated[str, DTYPES, "of the rows; bfloat16 is rounded stochastically"] = "float32"
    cosines: Annotated[str, COSINES, "kept between the sweeps, made again, or as the memory allows"] = "auto"
    gram: Annotated[str, ROADS, "whether P2SGrad goes without cosines; auto: where that is less work"] = "auto"
    near: Annotated[str, ROADS, "whether beyond chance goes by one look at all classes; auto: on a CPU"] = "auto"
    near_classes: Annotated[int, "rows in groups, so that an image has so many near ones; 0: random"] = 0
    row_optimizer: Annotated[str, ROW_OPTIMIZERS, "in the sweep of the gradient; none: torch's SGD"] = "sgd"
    momentum: Annotated[float, "of SGD, for every contender; 0: no state"] = 0.9
    clip: Annotated[float | None, "of a row's gradient, in steepest slopes of one image (default: none)"] = None
    state_dtype: Annotated[str, DTYPES, "of the row optimizer's moments"] = "float32"
    steps: Annotated[int, "measured steps of each contender"] = 5
    warm_up: Annotated[int, "steps before those, not measured; their memory is"] = 1
    steps_per_turn: Annotated[int, "how many steps a contender makes before the other's turn"] = 1
    against: Annotated[str | None, "dense, chunked, PATH:CLASS, or ours over another number of classes"] = None
    against_num_classes: Annotated[int | None, "of the other, where it is ours"] = None
    against_objective: Annotated[str | None, OBJECTIVES, "of the other, where it is ours"] = None
    against_sample_rate: Annotated[float | None, "the other's rate (default: ours)"] = None
    against_dtype: Annotated[str, DTYPES, "of the dense contender's big products"] = "float32"

    def __post_init__(self) -> None:
        for name, option in options().items():
            option.check(name, getattr(self, name))
        if self.batch % self.world:
            raise ValueError(f"batch={self.batch}: expected a multiple of world={self.world}; it is the global batch")
        if self.against not in (None, DENSE, CHUNKED, OURS) and ":" not in str(self.against):
            raise ValueError(
                f"against={self.against!r}: expected 'dense', 'chunked', 'ours' or PATH:CLASS, such as "
                "heads/mine.py:MyHead"
            )
        if self.world > 1 and (self.near_classes or self.against == CHUNKED):
            raise ValueError(f"world={self.world}: expected 1 with near_classes and with against='chunked'")
        others = self.against_num_classes, self.against_objective
        if (self.against == OURS) != any(others):
            raise ValueError(
                f"against={self.against!r}, against_num_classes={others[0]}, against_objective={others[1]!r}: expected "
                "a number of classes or an objective where against is 'ours', and only there"
            )

    @property
    def rate_against(self) -> float:
        """The sampling rate of the other contender."""
        return self.sample_rate if self.against_sample_rate is None else self.against_sample_rate

    @property
    def case_against(self) -> Case:
        """The case as the other contender meets it."""
        num_classes, objective = self.against_num_classes or self.num_classes, self.against_objective or self.objective
        return replace(self, num_classes=num_classes, objective=objective)

    @property
    def compares_losses(self) -> bool:
        """Whether the other contender is ours with another loss."""
        return self.against_objective is not None

    def command(self) -> str:
        """The command line that measures this, with what is not the default."""
        values = {option: getattr(self, option.name) for option in fields(self)}
        words = [f"--{o.name.replace('_', '-')} {value}" for o, value in values.items() if value != o.default]
        return " ".join(["python -m benchmarks.classifier", *words])


class Option(NamedTuple):
    """What a field of a case may be, and a line of help."""

    kind: type
    choices: tuple[str, ...] | None
    help: str

    def check(self, name: str, value: Any) -> None:
        """ValueError where `value` cannot be that of the field `name`."""
        if self.choices is not None and value is not None and value not in self.choices:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(self.choices)}")
        least = 0 if name == "near_classes" else 1
        if self.kind is int and value is not None and value < least:
            raise ValueError(f"{name}={value}: expected at least {least}")
        if name.endswith("rate") and value is not None and not 0.0 < value <= 1.0:
            raise ValueError(f"{name}={value}: expected 0 < {name} <= 1")


@cache
def options() -> dict[str, Option]:
    """The fields of a case, each an option of the command line."""
    found = {}
    for name, hint in get_type_hints(Case, include_extras=True).items():
        kind, *choices, help_text = get_args(hint)
        kinds = get_args(kind) or (kind,)  # `int | None` is an int where it is given
        found[name] = Option(kinds[0], tuple(choices[0]) if choices else None, help_text)
    return found
