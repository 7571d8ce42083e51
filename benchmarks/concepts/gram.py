"""The Gram form of P2SGrad: operations and memory of a step beside those of the block form.

Legend: `N` rows of the global batch; `C` classes; `D` dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.concepts.drawing import BLUE, RED
from launch.figure_style import MUTED
from partial_fc import P2SGrad, RowSGD
from partial_fc.objectives import Objective
from partial_fc.planning.head_cost import HeadCost
from partial_fc.planning.planned_head import HeadSpec

C, D = 100_000, 512
POWERS = tuple(2**power for power in range(4, 14))
BATCHES = tuple(sorted((*POWERS, 3 * D // 8, 3 * D // 8 + 1)))  # and both sides of where the form changes
TAKEN, BLOCKS = "the form that is taken", "the block form"
COLOURS = {BLOCKS: BLUE, TAKEN: RED}


class Cost(NamedTuple):
    """Of a step, for each class: operations, and bytes read and written beside the products."""

    operations: float
    traffic_bytes: float


def costs() -> dict[str, list[Cost]]:
    """Of both forms, against the batch: counted by the planner in the real step on fake tensors, on a CPU."""
    return {name: [_cost(makes, batch) for batch in BATCHES] for name, makes in _objectives().items()}


def draw_gram(figure: Figure) -> None:
    """Operations against the batch."""
    axes = figure.subplots()
    _draw_lines(axes)
    axes.set_xlabel("N, images of the global batch")
    axes.set_ylabel("operations of a step, for each class")
    axes.axvline(3 * D / 8, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.text(3 * D / 8 * 0.95, 5.5e4, f"N = 3D/8 = {3 * D // 8}", color=MUTED, fontsize=9, ha="right")
    axes.text(POWERS[-3], 1.4e7, "block form: 8·N·D", color=BLUE, fontsize=9.5, ha="right")
    axes.text(POWERS[-1] * 0.97, 4.6e5, "Gram form: about 3·D², whatever N is", color=RED, fontsize=9.5, ha="right")
    axes.set_xticks(POWERS, [f"{batch:,}" for batch in POWERS])


def draw_small_gram(figure: Figure) -> None:
    """The same, for a small place."""
    axes = figure.subplots()
    _draw_lines(axes)
    axes.set_xlabel("N")
    axes.set_title("operations for each class", fontsize=9)
    axes.text(POWERS[5], 1.0e7, "blocks", color=BLUE, fontsize=9)
    axes.text(POWERS[6], 3.4e5, "Gram form", color=RED, fontsize=9)
    axes.set_xticks(POWERS[::3], [f"{batch:,}" for batch in POWERS[::3]])


def _draw_lines(axes: Axes) -> None:
    for name, line in costs().items():
        style = "-" if name == TAKEN else (0, (4, 2))
        width = 2.4 if name == TAKEN else 1.6
        axes.plot(BATCHES, [each.operations for each in line], color=COLOURS[name], linestyle=style, linewidth=width)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlim(BATCHES[0], BATCHES[-1])


def _objectives() -> dict[str, type[Objective]]:
    class ByBlocks(P2SGrad):
        """The same loss, that does not say that it is quadratic: so it goes by blocks."""

        def __init__(self) -> None:
            super().__init__()
            self.is_quadratic = False

    return {BLOCKS: ByBlocks, TAKEN: P2SGrad}


def _cost(makes: type[Objective], batch: int) -> Cost:
    spec = HeadSpec(D, lambda classes: makes(), lambda: RowSGD(0.005), cosines="recompute", on_gpu=False)
    step = HeadCost(spec).step(C, batch, 1)
    return Cost(step.operations / C, step.traffic_bytes / C)
