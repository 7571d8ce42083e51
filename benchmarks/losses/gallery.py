"""A gallery of the losses, a panel each: pull, push and probability against the angle, as the papers draw them.

    python -m benchmarks.losses.gallery

writes `docs/experiments/gallery.svg`. Every curve is asked of the objective itself; nothing is trained.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.arguments import parser
from benchmarks.documents import DOCS
from benchmarks.losses.runs import NUM_CLASSES
from benchmarks.losses.slopes import DASHES, EMBEDDING_DIM, answers
from benchmarks.plot_style import figure_at
from partial_fc.functional.adacos import fixed_scale
from partial_fc.objectives import AdaCos, ArcFace, CombinedMargin, CosFace, CosineSoftmax, Objective, P2SGrad

FILE = DOCS / "experiments" / "gallery.svg"
COLUMNS = 3
LARGEST_DEGREES = 120
OWN_CLASS_DEGREES = 45.0  # for the push of another class
PULL, PUSH, PROBABILITY = "#b3202c", "#0b5fad", "#57606a"
TALLEST = 1.6  # ArcFace's derivative exceeds its scale


class Panel(NamedTuple):
    """A loss, and the scale that its slopes are divided by."""

    title: str
    objective: Objective
    scale: float
    is_softmax: bool = True


class Curves(NamedTuple):
    """Against `degrees`: `pull` of the own class and `push` of one other, both over the scale, and the probability."""

    degrees: NDArray[np.float64]
    pull: NDArray[np.float64]
    push: NDArray[np.float64]
    probability: NDArray[np.float64]


def panels() -> list[Panel]:
    """The losses of the gallery."""
    adacos = fixed_scale(NUM_CLASSES)
    return [
        Panel("NormFace, s = 30", CosineSoftmax(30.0), 30.0),
        Panel("NormFace, s = 64", CosineSoftmax(64.0), 64.0),
        Panel(f"AdaCos, s = {adacos:.1f}", AdaCos(NUM_CLASSES, dynamic=False), adacos),
        Panel("CosFace (64, 0.4)", CosFace(64.0, 0.4), 64.0),
        Panel("ArcFace (64, 0.5)", ArcFace(64.0, 0.5), 64.0),
        Panel("combined margin (64; 1, 0.3, 0.2)", CombinedMargin(64.0, 1.0, 0.3, 0.2), 64.0),
        Panel("P2SGrad, the paper's", P2SGrad(1.0, slope_scale=1.0), 1.0, False),
        Panel("P2SGrad beyond chance, fading", P2SGrad(negatives="beyond_chance"), adacos, False),
        Panel("the same, steady", P2SGrad(negatives="beyond_chance", pull="steady"), adacos, False),
    ]


def curves(panel: Panel) -> Curves:
    """The curves of one panel.

    A softmax's probability is exp(-loss), of its margin's target cosine where it has a margin. P2SGrad puts the cosine
    in its place: 1 - |slope| / scale. Where its pull is steady nothing stands in that place.
    """
    degrees = np.linspace(1.0, LARGEST_DEGREES, 2 * LARGEST_DEGREES - 1)
    cosines = np.cos(np.radians(degrees))
    own = answers(panel.objective, cosines)
    pull = np.abs(own.target_N.numpy()) / panel.scale
    at_rest = np.full_like(cosines, np.cos(np.radians(OWN_CLASS_DEGREES)))
    another = answers(panel.objective, at_rest, cosines)
    push = another.negatives(torch.from_numpy(cosines)[:, None].clone())[:, 0].numpy() / panel.scale
    probability = np.exp(-own.loss_N.numpy()) if panel.is_softmax else 1.0 - pull
    if getattr(panel.objective, "pull", "") == "steady":
        probability = np.full_like(pull, np.nan)
    return Curves(degrees, pull, push, probability)


def draw(path: Path) -> None:
    """Draw the gallery into `path`."""
    shown = panels()
    rows = -(-len(shown) // COLUMNS)
    title = f"{NUM_CLASSES:,} classes in {EMBEDDING_DIM} dimensions; those that are not asked about lie at 90°"
    with figure_at(path, 11.0, 2.7 * rows, title) as figure:
        grid = figure.subplots(rows, COLUMNS, sharex=True, sharey=True)
        for axes, panel in zip(grid.flat, shown, strict=True):
            drawn = curves(panel)
            axes.plot(drawn.degrees, drawn.pull, color=PULL, label="pull of the own class, at this angle")
            axes.plot(drawn.degrees, drawn.push, color=PUSH, label="push of one other at this angle, the own at 45°")
            axes.plot(drawn.degrees, drawn.probability, color=PROBABILITY, linestyle=DASHES, label="probability")
            axes.set_title(panel.title)
            axes.set_xlim(0, LARGEST_DEGREES)
            axes.set_ylim(0, TALLEST)
            axes.set_xticks(range(0, LARGEST_DEGREES + 1, 30))
        for axes in grid[-1]:
            axes.set_xlabel("angle, degrees")
        for axes in grid[:, 0]:
            axes.set_ylabel("slope / scale")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw it; 0 when done."""
    arguments = parser("losses.gallery", __doc__)
    arguments.add_argument("--out", type=Path, default=FILE, help="the picture (default: %(default)s)")
    out = arguments.parse_args(argv).out
    draw(out)
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
