"""The gradient contract: each rank's part of the gradient of ONE mean, and what becomes of it.

Two ranks with 3 images and 1; a backbone of one matrix; the classifier of three classes.
"""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.concepts.drawing import GREEN, RANKS, RED, tint
from launch.figure_style import INK
from partial_fc import CosFace, ShardedClassifier

IMAGES = ((1.0, 0.0), (0.5, 1.0), (-1.0, 0.5), (0.2, -1.0))
LABELS = (0, 1, 2, 1)
RANKS_ROWS = (slice(0, 3), slice(3, 4))
START = ((1.0, 0.5), (-0.5, 1.0))


def gradients() -> dict[str, float]:
    """Of one weight of the backbone: both ranks' parts, what may be made of them, and one process's gradient."""
    images_N2, labels_N = torch.tensor(IMAGES), torch.tensor(LABELS)
    parts = [_gradient(images_N2, labels_N, own) for own in RANKS_ROWS]
    alone = [_gradient(images_N2[own], labels_N[own], slice(None)) for own in RANKS_ROWS]
    return {
        "rank 0's part, 3 images": parts[0],
        "rank 1's part, 1 image": parts[1],
        "their sum": sum(parts),
        "one process, 4 images": _gradient(images_N2, labels_N, slice(None)),
        "their average": sum(parts) / 2,
        "mean of each rank's own mean": sum(alone) / 2,
    }


def _gradient(images_N2: Tensor, labels_N: Tensor, own: slice) -> float:
    """The gradient of the mean over all rows, as far as it reaches the backbone through the rows `own`."""
    backbone = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        backbone.weight.copy_(torch.tensor(START))
    embeddings_N2 = backbone(images_N2)
    is_own_N1 = torch.zeros(len(images_N2), 1, dtype=torch.bool)
    is_own_N1[own] = True
    head = ShardedClassifier(3, 2, CosFace(4.0, 0.1))
    head(torch.where(is_own_N1, embeddings_N2, embeddings_N2.detach()), labels_N).backward()
    assert backbone.weight.grad is not None
    return backbone.weight.grad[0, 0].item()


def draw_contract(figure: Figure) -> None:
    """A bar for each."""
    axes = figure.subplots()
    found = gradients()
    _draw_bars(axes, list(found), list(found.values()))
    axes.set_xlabel("gradient of one weight of the backbone")
    whole = found["one process, 4 images"]
    axes.axvline(whole, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))


def draw_small_contract(figure: Figure) -> None:
    """The parts, their sum and their average."""
    axes = figure.subplots()
    found = gradients()
    names = {"rank 0's part, 3 images": "rank 0", "rank 1's part, 1 image": "rank 1", "their sum": "sum"}
    names |= {"their average": "average"}
    _draw_bars(axes, list(names.values()), [found[name] for name in names])


def _draw_bars(axes: Axes, names: list[str], numbers: list[float]) -> None:
    colours = (RANKS[0], RANKS[1], GREEN, INK, RED, RED) if len(names) == 6 else (RANKS[0], RANKS[1], GREEN, RED)
    widest = max(map(abs, numbers))
    for place, (number, colour) in enumerate(zip(numbers, colours, strict=True)):
        axes.barh(place, number, height=0.62, color=tint(colour, 0.8))
        side = "left" if number >= 0 else "right"
        x = number + (0.02 if number >= 0 else -0.02) * widest
        axes.text(x, place, f"{number:+.4f}".replace("-", "−"), va="center", ha=side, fontsize=9)
    low, high = min(0.0, *numbers), max(0.0, *numbers)
    axes.set_xlim(low - 0.55 * widest, high + 0.55 * widest)
    axes.axvline(0.0, color=INK, linewidth=1.0)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
