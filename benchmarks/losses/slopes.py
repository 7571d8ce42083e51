"""How hard each loss pulls an image to its class, angle by angle: mathematics, no training.

The figure of the P2SGrad paper (1905.02479), with one assumption made explicit: every other class lies at 90°.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.losses.runs import NUM_CLASSES
from benchmarks.plot_style import FAMILIES, figure_at
from partial_fc.functional.adacos import fixed_scale
from partial_fc.objectives import AdaCos, ArcFace, CosFace, CosineSoftmax, Objective, P2SGrad
from partial_fc.rules import Rule
from partial_fc.slopes import Cosines, Near, Slopes

EMBEDDING_DIM = 256  # P2SGrad's weight of the other classes depends on it, its slope at the target does not
LARGEST_DEGREES = 110
DASHES = (0, (4, 2))


class SlopeLine(NamedTuple):
    """One loss of the figure; `scale` is what its slope is divided by to compare shapes."""

    label: str
    objective: Objective
    scale: float
    family: str
    shade: int = 0
    style: str | tuple[int, tuple[int, int]] = "-"


def slope_lines() -> list[SlopeLine]:
    """The losses of the figure."""
    adacos = fixed_scale(NUM_CLASSES)
    return [
        SlopeLine(f"P2SGrad, slope scale {adacos:.1f}", P2SGrad(), adacos, "p2sgrad"),
        SlopeLine(f"AdaCos fixed, s = {adacos:.1f}", AdaCos(NUM_CLASSES, dynamic=False), adacos, "adacos"),
        SlopeLine("NormFace 30", CosineSoftmax(30.0), 30.0, "cosine_softmax", shade=1),
        SlopeLine("NormFace 64", CosineSoftmax(64.0), 64.0, "cosine_softmax"),
        SlopeLine("CosFace (64, 0.4)", CosFace(64.0, 0.4), 64.0, "cosface"),
        SlopeLine("ArcFace (64, 0.5)", ArcFace(64.0, 0.5), 64.0, "arcface"),
        SlopeLine("the same, straight-through", ArcFace(64.0, 0.5, True), 64.0, "arcface", 1, DASHES),
    ]


def slopes_at_target(objective: Objective, angles_radians: NDArray[np.float64]) -> NDArray[np.float64]:
    """``∂loss/∂cos θ_y`` at each angle, every other of NUM_CLASSES classes at 90°, as the objective itself gives it."""
    return np.asarray(answers(objective, np.cos(angles_radians)).target_N.numpy())


def answers(
    objective: Objective, targets_N: NDArray[np.float64], another_N: NDArray[np.float64] | None = None
) -> Slopes:
    """What the objective says to images with these cosines to their own class and, where given, to one other.

    All classes that are left lie at 90°.
    """
    with_another = torch.zeros(len(targets_N), 1, dtype=torch.float64)
    if another_N is not None:
        with_another = torch.from_numpy(another_N)[:, None].double()

    def sum_over_negatives(f: Rule) -> Tensor:
        others = f(torch.zeros_like(with_another)) * (NUM_CLASSES - 2)
        return (others + f(with_another.clone()))[:, 0]

    def near(above: float) -> Near:
        excess_N = (with_another[:, 0] - above).clamp(min=0.0)
        return Near(excess_N.square(), excess_N.sign())

    cosines = Cosines(
        num_classes=NUM_CLASSES,
        num_negatives=NUM_CLASSES - 1,
        embedding_dim=EMBEDDING_DIM,
        own_target_N=torch.from_numpy(targets_N),
        all_sum=lambda own: own,
        own_sum_over_negatives=sum_over_negatives,
        own_squares=lambda: sum_over_negatives(Rule(torch.square)),
        own_near=near,
    )
    answered: Slopes = objective.eval()(cosines)
    return answered


def draw_slopes(path: Path) -> None:
    """Draw the slopes at the target into `path`: divided by the scale, and as they are."""
    degrees = np.linspace(0.25, LARGEST_DEGREES, 4 * LARGEST_DEGREES)
    title = f"Pull of an image's own class, the other {NUM_CLASSES - 1:,} classes at 90°"
    with figure_at(path, 11.0, 5.0, title) as figure:
        shapes, lengths = figure.subplots(1, 2)
        for line in slope_lines():
            look = {"color": FAMILIES[line.family][line.shade], "linestyle": line.style}
            length = np.abs(slopes_at_target(line.objective, np.radians(degrees)))
            shapes.plot(degrees, length / line.scale, label=line.label, **look)
            lengths.plot(degrees, length, **look)
        shapes.set_title("|slope| / scale")
        lengths.set_title("|slope|")
        lengths.set_yscale("log")
        lengths.set_ylim(0.05, 130)
        lengths.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        for axes in (shapes, lengths):
            axes.set_xlim(0, LARGEST_DEGREES)
            axes.set_xticks(range(0, LARGEST_DEGREES, 15))
            axes.set_xlabel("angle between image and its class, degrees")
        shapes.legend(loc="upper left")
