"""A benchmark's figure in the project's style, and a family of shades, readable on white, for each kind of loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from launch.figure_style import figure_style

NO_METADATA = {"Date": None, "Creator": None}  # nothing that differs between two drawings
FAMILIES = {
    "p2sgrad": ("#b3202c", "#f08a24", "#7a0f1f", "#e0525b", "#c9548f", "#8c4a3c", "#f2a3b3", "#a86fb0"),
    "adacos": ("#0b5fad", "#4fa3e0"),
    "arcface": ("#1c7c4a", "#63b26f", "#9acb7a"),
    "cosface": ("#8a6a00", "#cfae2b"),
    "cosine_softmax": ("#57606a", "#9aa3ad"),
}


def shades() -> dict[str, Iterator[str]]:
    """For each kind of loss its shades one after the other, and from the start again."""
    return {kind: cycle(colours) for kind, colours in FAMILIES.items()}


@contextmanager
def figure_at(path: Path, width_inches: float, height_inches: float, title: str = "") -> Iterator[Figure]:
    """An empty figure in this style; at the end of the block it stands in `path`, without a date."""
    with matplotlib.rc_context(figure_style()):
        figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=10.5)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata=NO_METADATA if path.suffix == ".svg" else None)
