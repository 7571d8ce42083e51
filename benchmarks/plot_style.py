"""How the benchmarks' figures look: readable on white, and a family of shades for each kind of loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK, MUTED, GRID = "#24292f", "#6e7781", "#e3e6ea"
FAMILIES = {
    "p2sgrad": ("#b3202c", "#f08a24", "#7a0f1f", "#e0525b", "#c9548f", "#8c4a3c", "#f2a3b3", "#a86fb0"),
    "adacos": ("#0b5fad", "#4fa3e0"),
    "arcface": ("#1c7c4a", "#63b26f", "#9acb7a"),
    "cosface": ("#8a6a00", "#cfae2b"),
    "cosine_softmax": ("#57606a", "#9aa3ad"),
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",  # a picture in a document brings no font of its own
    "svg.hashsalt": "partial-fc",  # the same results give the same file
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}


@contextmanager
def figure_at(path: Path, width_inches: float, height_inches: float) -> Iterator[Figure]:
    """An empty figure in this style; at the end of the block it stands in `path`, without a date."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)
