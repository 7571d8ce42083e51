"""What the pictures of concepts share: a colour for each rank and each library, and axes that are a sheet of paper."""

from __future__ import annotations

import colorsys

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb

from benchmarks.plot_style import FAMILIES
from launch.figure_style import MUTED

WIDTH_INCHES = 7.3  # 700 pixels in a browser
SMALL_INCHES = 3.4
RANKS = tuple(FAMILIES[kind][0] for kind in ("adacos", "arcface", "cosface", "cosine_softmax"))
LIBRARIES = {
    "launch": FAMILIES["arcface"][0],
    "data_pipeline": FAMILIES["adacos"][0],
    "partial_fc": FAMILIES["p2sgrad"][0],
}
RED, ORANGE = FAMILIES["p2sgrad"][:2]
BLUE, GREEN, GREY = FAMILIES["adacos"][0], FAMILIES["arcface"][0], MUTED


def tint(colour: str, share: float) -> str:
    """`colour` mixed with white, of which it keeps this share."""
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def paper(axes: Axes, width: float, height: float) -> None:
    """Make `axes` an empty sheet of `width` times `height`, with its origin at the upper left."""
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()


def is_dark(colour: str) -> bool:
    """Whether white text is the readable one on it."""
    return colorsys.rgb_to_hls(*to_rgb(colour))[1] < 0.55
