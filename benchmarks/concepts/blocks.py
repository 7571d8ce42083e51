"""Blocks: a sweep over a shard, and the memory of a block beside that of all cosines.

Legend: `N` rows of the global batch; `c` a rank's classes, `b` a block's; `D` dimensions.
"""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import FuncFormatter

from benchmarks.concepts.drawing import BLUE, GREEN, ORANGE, RED, paper, tint
from launch.figure_style import INK, MUTED
from launch.units import bytes_text
from partial_fc import CosFace, RowSGD, World
from partial_fc.functional.cosine import blocks
from partial_fc.planning.head_cost import HeadCost
from partial_fc.planning.planned_head import HeadSpec
from partial_fc.sweeps.sweep import Sweep

D = 512
SHARD = 1_250_000  # a rank's classes: ten million on 8 ranks
SHOWN = 10_000  # classes of the sweep that is drawn
BATCHES = tuple(2**power for power in range(6, 14))


def block_width(batch: int, dim: int = D) -> int:
    """How many classes a block has on a CPU, as the sweep itself says."""
    unit_ND, labels_N = torch.zeros(batch, dim), torch.zeros(batch, dtype=torch.int64)
    rows_cD = torch.zeros(1, dim)
    sweep = Sweep(World(), 1, range(1), rows_cD, True, unit_ND, labels_N, [batch], torch.float32)
    return sweep.block_width()


def widths(batch: int) -> list[int]:
    """The widths of the blocks of a shard of `SHOWN` classes."""
    return [part.stop - part.start for part in blocks(SHOWN, block_width(batch))]


def draw_sweep(figure: Figure) -> None:
    """Two sweeps over the blocks of one shard."""
    axes = figure.subplots()
    paper(axes, 100, 46)
    batch = 1024
    found = widths(batch)
    text = f"a shard of {SHOWN:,} classes, N = {batch:,}: {len(found)} blocks of up to {found[0]:,} classes"
    axes.text(0, 3, text, fontsize=9.5, va="center")
    _strip(axes, 7, BLUE, "first sweep: sums over the other classes", found)
    _strip(axes, 31, RED, "second sweep: slopes, both gradients, and the block's rows are moved", found)
    axes.text(50, 25.2, "all-reduce of 2·N numbers: the loss and every slope are known", ha="center", fontsize=9)
    for x in (14, 86):
        axes.add_patch(
            FancyArrowPatch((x, 21.5), (x, 29.5), arrowstyle="-|>", mutation_scale=9, color=MUTED, linewidth=1.0)
        )


def _strip(axes: Axes, top: float, colour: str, text: str, found: list[int]) -> None:
    left, now = 0.0, 3
    for number, width in enumerate(found):
        share = 100 * width / SHOWN
        shade = colour if number == now else tint(colour, 0.35 if number < now else 0.1)
        axes.add_patch(Rectangle((left, top), share, 8, facecolor=shade, edgecolor="white", linewidth=1.5))
        label, ink = ("in memory", "white") if number == now else ("done" if number < now else "to come", INK)
        axes.text(
            left + share / 2, top + 4, label if share > 5 else "", ha="center", va="center", fontsize=8, color=ink
        )
        left += share
    axes.text(0, top + 11, text, fontsize=9, color=colour, va="center")


def memory() -> dict[str, list[float]]:
    """Bytes against the batch, of one rank of `SHARD` classes: the planner's step on fake tensors, and the matrix."""
    lines: dict[str, list[float]] = {"all cosines of a rank, N x c": [4.0 * batch * SHARD for batch in BATCHES]}
    for name, on_gpu in (("a step's blocks on a GPU", True), ("a step's blocks on a CPU", False)):
        spec = HeadSpec(D, lambda classes: CosFace(), lambda: RowSGD(0.005, 0.9), cosines="recompute", on_gpu=on_gpu)
        cost = HeadCost(spec)
        lines[name] = [float(cost.memory_bytes(SHARD, batch, 1)["blocks"]) for batch in BATCHES]
    lines["class rows of a rank, c x D"] = [4.0 * SHARD * D for _ in BATCHES]
    return lines


def draw_memory(figure: Figure) -> None:
    """Those lines, each named at its right end."""
    axes = figure.subplots()
    _draw_lines(axes)
    axes.set_xlabel("N, images of the global batch")
    axes.set_xlim(BATCHES[0], BATCHES[-1] * 100)
    for (name, line), colour in zip(memory().items(), (RED, ORANGE, BLUE, GREEN), strict=True):
        text = f"{name}: {bytes_text(line[-1])}"
        axes.text(BATCHES[-1] * 1.2, line[-1], text, va="center", fontsize=9, color=colour)


def draw_small_memory(figure: Figure) -> None:
    """Two of the lines."""
    axes = figure.subplots()
    _draw_lines(axes, ("all cosines of a rank, N x c", "a step's blocks on a CPU"))
    axes.set_xlabel("N")
    axes.text(BATCHES[1], 1.2e10, "all cosines", color=RED, fontsize=9)
    axes.text(BATCHES[3], 3.6e7, "one block", color=BLUE, fontsize=9)


def _draw_lines(axes: Axes, names: tuple[str, ...] = ()) -> None:
    for (name, line), colour in zip(memory().items(), (RED, ORANGE, BLUE, GREEN), strict=True):
        if not names or name in names:
            axes.plot(BATCHES, line, color=colour)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(BATCHES[::2], [f"{batch:,}" for batch in BATCHES[::2]])
    axes.set_yticks([2.0**power for power in range(25, 37, 3)])
    axes.set_xlim(BATCHES[0], BATCHES[-1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value).replace(".00", "")))
