"""The cases of `make bench`, `cpu.json` and `cuda.json`, and what was aimed at.

In a name, n is the batch, c the classes, r the sampling rate, and what follows "dense" is the dense contender's own.
Those of the aims come first. Then P2SGrad without momentum from few classes to many, each in turns with one number of
classes, so that what else the machine does meets both; pairs with the dense one over the classes, the batch and the
sampling rate; and what occurs once. Dense steps over many classes take seconds (13 s at C = 200,000, N = 1024 on two
cores), so there are few; quick ones are more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.classifier.case import OURS, Case
from benchmarks.results import read_json

BATCH = 512
CLASSES = {"cpu": 200_000, "cuda": 1_000_000}  # C where something else varies
CLASSES_OVER_BATCHES = {"cpu": 100_000, "cuda": 500_000}  # but where the batch does


@cache
def cases(device: str) -> dict[str, Case]:
    """Every case of a kind of device by its name."""
    table = read_json(Path(__file__).with_name(f"{device}.json"), dict[str, dict[str, Any]])
    return {name: Case(**settings, device=device) for name, settings in table.items()}


def over_classes(device: str) -> list[str]:
    """The names of the cases whose time per class is asked to be flat."""
    return [name for name, case in cases(device).items() if case.against == OURS]


@dataclass(frozen=True)
class Aim:
    """What was asked of one case, or of several: `figure` is an attribute of its record; `is_least`: so much or more,
    else or less.
    """

    text: str
    case: str
    figure: str
    wanted: float
    is_least: bool

    def is_met(self, measured: float) -> bool:
        """Whether `measured` will do."""
        return measured >= self.wanted if self.is_least else measured <= self.wanted


def aims() -> Sequence[Aim]:
    """The aims, for two cores at C = 200,000, D = 512."""
    faster, memory = "times_faster", "share_of_memory"
    full, tenth = "against dense", "against dense at 10 %"
    p2sgrad, adacos, sampled = "p2sgrad-n1024-dense", "adacos-bf16-dense", "cosface-r0.1-dense"
    all_classes = f"P2SGrad, all classes, bfloat16 products, N = 512, {tenth}"
    return [
        Aim(f"P2SGrad, N = 1024, {full}: time", p2sgrad, faster, 10.0, True),
        Aim(f"P2SGrad, N = 1024, {full}: memory", p2sgrad, memory, 0.2, False),
        Aim(f"{all_classes}: time", "p2sgrad-bf16-n512-dense-r0.1", faster, 1.4, True),
        Aim(f"the same, N = 1024, {tenth}: time", "p2sgrad-bf16-n1024-dense-r0.1", faster, 2.5, True),
        Aim(f"AdaCos, bfloat16 products, N = 512, {full}: time", adacos, faster, 3.0, True),
        Aim(f"AdaCos, bfloat16 products, N = 512, {full}: memory", adacos, memory, 0.4, False),
        Aim(f"AdaCos, float32, N = 512, {full}: time", "adacos-dense", faster, 1.7, True),
        Aim(f"CosFace at 10 %, N = 512, {tenth}: time", sampled, faster, 3.0, True),
        Aim(f"CosFace at 10 %, N = 512, {tenth}: memory", sampled, memory, 0.6, False),
    ]


ALL_FULL = "any full step over the aims' number of classes or more"
PEAK_AIM = Aim(f"peak memory of {ALL_FULL}, over weights and state", "", "peak_over_held", 1.15, False)
CURVE_AIM = Aim("time per class over the curve, longest over shortest", "", "times_per_class", 1.15, False)
