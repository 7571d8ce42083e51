"""The cases of `make bench`: what is measured on a CPU and on a GPU, and what was aimed at.

In a name, n is the batch, c the classes, r the sampling rate, and what follows "dense" is the dense contender's own.
Dense steps over many classes take seconds (13 s at C = 200,000, N = 1024 on two cores), so there are few; quick ones
are more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.classifier.case import DENSE, OURS, Case

BATCH = 512
RATES = (0.01, 0.03, 0.3, 1.0)


@dataclass(frozen=True)
class Sizes:
    """How large the cases are on one kind of device.

    `classes` is C where something else varies, but `classes_over_batches` where the batch does; `class_curve` is C from
    the least to what fits, `compared_classes` those where the dense contender is asked too. Steps: `quick` where one
    takes about a second or less, `slow` where it takes longer, `few` where that is for a point of a curve only.
    """

    device: str
    classes: int
    classes_over_batches: int
    class_curve: tuple[int, ...]
    compared_classes: tuple[int, ...]
    batches: tuple[int, ...]
    quick: int
    slow: int
    few: int
    warm_up: int = 1
    steps_per_turn: int = 1

    def case(self, objective: str, classes: int, steps: int, **settings: Any) -> Case:
        """A case of this device; `settings` are those of :class:`Case`."""
        settings |= {"device": self.device, "warm_up": self.warm_up, "steps_per_turn": self.steps_per_turn}
        return Case(objective, classes, steps=steps, **settings)


CPU = Sizes(
    device="cpu",
    classes=200_000,
    classes_over_batches=100_000,
    class_curve=(100_000, 200_000, 500_000, 1_000_000, 2_000_000, 4_000_000),
    compared_classes=(50_000, 100_000, 500_000),
    batches=(128, 256, 512, 1024, 2048),
    quick=5,
    slow=3,
    few=2,
)
CUDA = Sizes(
    device="cuda",
    classes=1_000_000,
    classes_over_batches=500_000,
    class_curve=(500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000),
    compared_classes=(250_000, 500_000, 2_000_000),
    batches=(128, 256, 512, 1024, 2048, 4096),
    quick=40,
    slow=20,
    few=20,
    warm_up=5,
    steps_per_turn=5,
)
SIZES = {"cpu": CPU, "cuda": CUDA}

P2SGRAD_DENSE, P2SGRAD_DENSE10 = "p2sgrad-n1024-dense", "p2sgrad-bf16-n512-dense-r0.1"
P2SGRAD_DENSE10_N1024 = "p2sgrad-bf16-n1024-dense-r0.1"
ADACOS_DENSE, ADACOS_BF16_DENSE = "adacos-dense", "adacos-bf16-dense"
SAMPLED_DENSE = "cosface-r0.1-dense"


def cases(sizes: Sizes) -> dict[str, Case]:
    """Every case by its name, those of the aims first."""
    return {**_aims(sizes), **_over_classes(sizes), **_over_batches(sizes), **_others(sizes)}


def over_classes(sizes: Sizes) -> list[str]:
    """The names of the cases whose time per class is asked to be flat."""
    return [f"p2sgrad-c{classes}" for classes in sizes.class_curve]


def _aims(sizes: Sizes) -> dict[str, Case]:
    C, bf16, tenth = sizes.classes, {"dtype": "bfloat16"}, {"against": DENSE, "against_sample_rate": 0.1}
    return {
        P2SGRAD_DENSE: sizes.case("p2sgrad", C, sizes.slow, batch=1024, against=DENSE),
        P2SGRAD_DENSE10: sizes.case("p2sgrad", C, sizes.quick, **bf16, **tenth),
        P2SGRAD_DENSE10_N1024: sizes.case("p2sgrad", C, sizes.quick, batch=1024, **bf16, **tenth),
        ADACOS_BF16_DENSE: sizes.case("adacos", C, sizes.slow, against=DENSE, cosines="keep", **bf16),
        ADACOS_DENSE: sizes.case("adacos", C, sizes.slow, against=DENSE),
        SAMPLED_DENSE: sizes.case("cosface", C, sizes.quick, sample_rate=0.1, against=DENSE),
    }


def _over_classes(sizes: Sizes) -> dict[str, Case]:
    """P2SGrad, without momentum, from few classes to many, each in turns with one number of classes: so what else the
    machine does meets both; and the pairs with the dense one, as far as that goes.
    """
    one_number = {"against": OURS, "against_num_classes": sizes.classes}
    found = {
        name: sizes.case("p2sgrad", classes, sizes.slow, momentum=0.0, **one_number)
        for name, classes in zip(over_classes(sizes), sizes.class_curve, strict=True)
    }
    bf16 = {"dtype": "bfloat16", "against": DENSE}
    for c in sizes.compared_classes:
        found[f"adacos-bf16-c{c}-dense"] = sizes.case("adacos", c, sizes.few, **bf16)
    for c in sizes.compared_classes:
        tenth = sizes.case("p2sgrad", c, sizes.few, against_sample_rate=0.1, **bf16)
        found[f"p2sgrad-bf16-c{c}-dense-r0.1"] = tenth
    return found


def _over_batches(sizes: Sizes) -> dict[str, Case]:
    c, found = sizes.classes_over_batches, {}
    for n in sizes.batches:
        found[f"p2sgrad-c{c}-n{n}-dense"] = sizes.case("p2sgrad", c, sizes.few, batch=n, against=DENSE)
    tenth = {"dtype": "bfloat16", "against": DENSE, "against_sample_rate": 0.1}
    for n in sizes.batches:
        found[f"adacos-bf16-c{c}-n{n}-dense-r0.1"] = sizes.case("adacos", c, sizes.few, batch=n, **tenth)
    return found


def _others(sizes: Sizes) -> dict[str, Case]:
    """CosFace over the sampling rates, and what occurs once."""
    C, slow, bf16 = sizes.classes, sizes.slow, {"dtype": "bfloat16"}
    low_state = {**bf16, "state_dtype": "bfloat16"}
    sampled = {
        f"cosface-r{rate:g}-dense": sizes.case(
            "cosface", C, slow if rate > 0.1 else sizes.quick, sample_rate=rate, against=DENSE
        )
        for rate in RATES
    }
    return {
        **sampled,
        "p2sgrad-adamw": sizes.case("p2sgrad", C, slow, row_optimizer="adamw"),
        "p2sgrad-all-bf16": sizes.case("p2sgrad", C, slow, weight_dtype="bfloat16", **low_state),
        "arcface-bf16": sizes.case("arcface", C, slow, **bf16),
        "adacos-bf16-world2-dense": sizes.case("adacos", C, slow, world=2, against=DENSE, **bf16),
        "p2sgrad-bf16-largest": sizes.case("p2sgrad", sizes.class_curve[-1], sizes.quick, **low_state),
    }


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
    return [
        Aim(f"P2SGrad, N = 1024, {full}: time", P2SGRAD_DENSE, faster, 10.0, True),
        Aim(f"P2SGrad, N = 1024, {full}: memory", P2SGRAD_DENSE, memory, 0.2, False),
        Aim(f"P2SGrad, all classes, bfloat16 products, N = 512, {tenth}: time", P2SGRAD_DENSE10, faster, 1.4, True),
        Aim(f"the same, N = 1024, {tenth}: time", P2SGRAD_DENSE10_N1024, faster, 2.5, True),
        Aim(f"AdaCos, bfloat16 products, N = 512, {full}: time", ADACOS_BF16_DENSE, faster, 3.0, True),
        Aim(f"AdaCos, bfloat16 products, N = 512, {full}: memory", ADACOS_BF16_DENSE, memory, 0.4, False),
        Aim(f"AdaCos, float32, N = 512, {full}: time", ADACOS_DENSE, faster, 1.7, True),
        Aim(f"CosFace at 10 %, N = 512, {tenth}: time", SAMPLED_DENSE, faster, 3.0, True),
        Aim(f"CosFace at 10 %, N = 512, {tenth}: memory", SAMPLED_DENSE, memory, 0.6, False),
    ]


ALL_FULL = "any full step over the aims' number of classes or more"
PEAK_AIM = Aim(f"peak memory of {ALL_FULL}, over weights and state", "", "peak_over_held", 1.15, False)
CURVE_AIM = Aim("time per class over the curve, longest over shortest", "", "times_per_class", 1.15, False)
