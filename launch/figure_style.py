"""How the project's figures look: quiet axes, a light grid, and nothing that differs between two drawings."""

from __future__ import annotations

from typing import Any

INK, MUTED, GRID = "#24292f", "#6e7781", "#e3e6ea"  # readable on white


def figure_style(ink: str = INK, muted: str = MUTED, grid: str = GRID) -> dict[Any, Any]:
    """Matplotlib's settings for one figure, in these colours; the keys that a figure wants otherwise go over them."""
    return {
        "svg.fonttype": "path",  # a picture in a document brings no font of its own
        "svg.hashsalt": "partial-fc",  # the same figures give the same file
        "font.size": 10,
        "text.color": ink,
        "axes.edgecolor": grid,
        "axes.labelcolor": muted,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "grid.color": grid,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "ytick.minor.size": 0,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
        "legend.frameon": False,
    }
