"""The sharded head: whole batch against own classes, what travels, and what never exists.

Legend: `N` rows of the global batch, `n` a rank's; `C` all classes, `c` a rank's; `D` dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from benchmarks.concepts.drawing import BLUE, GREEN, RANKS, RED, is_dark, paper, tint
from launch.figure_style import INK, MUTED
from launch.units import bytes_text
from partial_fc import AdaCos, RowSGD
from partial_fc.functional.cosine import unit_rows
from partial_fc.planning.head_cost import HeadCost
from partial_fc.planning.planned_head import HeadSpec
from partial_fc.rows.sampling import initial_rows
from partial_fc.rows.sharding import class_range, owned_targets

C, D, N, SIZE = 10, 32, 6, 3  # of the small example
LABELS = (7, 2, 0, 9, 4, 2)
LARGE_C, LARGE_D, LARGE_N, LARGE_SIZE = 10_000_000, 512, 1024, 8


class Example(NamedTuple):
    """Class rows `(C, D)` and a batch `(N, D)` near its own classes, the cosines of both, and the labels."""

    rows_CD: Tensor
    unit_ND: Tensor
    cosines_NC: Tensor
    labels_N: Tensor


def example() -> Example:
    """Six images of three ranks and ten classes: rows as a run begins with them, and embeddings beside them."""
    rows_CD, labels_N = initial_rows(range(C), D, seed=0).double(), torch.tensor(LABELS)
    noise_ND = initial_rows(range(N), D, seed=1).double()
    unit_ND, _ = unit_rows(rows_CD[labels_N] + 0.8 * noise_ND)
    return Example(rows_CD, unit_ND, unit_ND @ rows_CD.T, labels_N)


def draw_head(figure: Figure) -> None:
    """Every rank's columns of the matrix, with the real cosines."""
    axes = figure.subplots()
    paper(axes, 13.0, 9.8)
    _matrix(axes, left=2.9, top=2.0, numbers=True)
    axes.text(0.0, 0.95, "from rank", color=MUTED, fontsize=8.5)
    axes.text(0.0, 1.6, "N = 6 images", color=INK, fontsize=8.5)
    axes.text(1.75, 1.6, "label", color=MUTED, fontsize=8.5)
    for image, label in enumerate(LABELS):
        axes.text(2.15, 2.5 + image, f"{label}", va="center", ha="center", fontsize=9.5, weight="bold")
    for rank in range(SIZE):
        shard = class_range(C, rank, SIZE)
        middle = 2.9 + (shard.start + shard.stop) / 2
        axes.text(middle, 8.55, "its sums: N numbers", ha="center", fontsize=8.5, color=RANKS[rank])
    axes.plot([2.95, 12.85], [8.9, 8.9], color=INK, linewidth=1.0)
    text = "all-reduce: every rank knows the targets' cosines (bold), the loss and all slopes"
    axes.text(7.9, 9.5, text, ha="center", fontsize=9)


def draw_small_head(figure: Figure) -> None:
    """The same without numbers."""
    axes = figure.subplots()
    paper(axes, 11.4, 8.2)
    _matrix(axes, left=1.2, top=2.0, numbers=False)


def _matrix(axes: Axes, left: float, top: float, *, numbers: bool) -> None:
    cosines_NC = example().cosines_NC
    for rank in range(SIZE):
        shard, images = class_range(C, rank, SIZE), class_range(N, rank, SIZE)
        name = f"rank {rank}: classes {shard.start} to {shard.stop - 1}" if numbers else f"rank {rank}"
        _box(axes, left + shard.start, top - 1.1, len(shard), 0.8, RANKS[rank], name, 9)
        _box(axes, left - 2.9 if numbers else 0.0, top + images.start, 0.8, len(images), RANKS[rank], str(rank), 9)
        rows, columns, _ = owned_targets(torch.tensor(LABELS), shard)
        targets = set(zip(rows.tolist(), (columns + shard.start).tolist(), strict=True))
        for image in range(N):
            for class_id in shard:
                is_target = (image, class_id) in targets
                shade = tint(RANKS[rank], 0.45 if is_target else 0.12)
                cosine = f"{cosines_NC[image, class_id]:.2f}" if numbers else ""
                _cell(axes, left + class_id, top + image, shade, cosine, is_target=is_target)


def _box(axes: Axes, x: float, y: float, width: float, height: float, colour: str, text: str, size: float) -> None:
    axes.add_patch(Rectangle((x + 0.04, y + 0.04), width - 0.08, height - 0.08, facecolor=colour, edgecolor="none"))
    ink = "white" if is_dark(colour) else INK
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size, color=ink)


def _cell(axes: Axes, x: float, y: float, colour: str, text: str, *, is_target: bool) -> None:
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.2))
    weight = "bold" if is_target else "normal"
    axes.text(x + 0.5, y + 0.5, text.replace("-", "−"), ha="center", va="center", fontsize=8.5, weight=weight)


def sizes() -> dict[str, dict[str, int]]:
    """Bytes of a step of AdaCos on 8 ranks, as the planner's step on fake tensors has them, and of what it avoids."""
    spec = HeadSpec(LARGE_D, AdaCos, lambda: RowSGD(0.005, 0.9), cosines="recompute")
    cost = HeadCost(spec)
    memory = cost.memory_bytes(LARGE_C, LARGE_N, LARGE_SIZE)
    step = cost.step(LARGE_C, LARGE_N, LARGE_SIZE)
    c, word = len(class_range(LARGE_C, 0, LARGE_SIZE)), 4
    return {
        "travels in a step": {f"{each.what}, {each.kind}": each.total_bytes for each in step.collectives},
        "one rank holds": {
            "blocks, and what is made of them": memory["blocks"],
            "its class rows, c x D": memory["class rows"],
            "their optimizer state": memory["row optimizer state"],
        },
        "exists nowhere": {
            "gradient of a shard's rows, c x D": c * LARGE_D * word,
            "cosines of one rank, N x c": LARGE_N * c * word,
            "all class rows on one rank, C x D": LARGE_C * LARGE_D * word,
            "all cosines, N x C": LARGE_N * LARGE_C * word,
        },
    }


def draw_traffic(figure: Figure) -> None:
    """Those bytes as bars on a logarithmic axis."""
    axes, place, ticks = figure.subplots(), 0.0, dict[float, str]()
    for (group, bars), colour in zip(sizes().items(), (BLUE, GREEN, RED), strict=True):
        axes.text(1200, place, group, color=colour, fontsize=9.5, weight="bold", va="center")
        for name, number in bars.items():
            place += 1
            face, style = (tint(RED, 0.12), "--") if colour == RED else (colour, "-")
            axes.barh(place, number, height=0.66, facecolor=face, edgecolor=colour, linestyle=style)
            axes.text(number * 1.25, place, bytes_text(number), va="center", fontsize=9)
            ticks[place] = name
        place += 1.3
    axes.set_xscale("log", base=2)
    axes.set_xlim(1024, 2**40)
    axes.set_ylim(place - 0.5, -0.6)
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=9)
    powers = range(10, 37, 5)
    axes.set_xticks([2**power for power in powers], [bytes_text(2**power).replace(".00", "") for power in powers])
    axes.grid(visible=False, axis="y")
