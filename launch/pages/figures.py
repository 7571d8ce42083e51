"""The report's figures as inline SVG in the page's own colours, so that one drawing suits light and dark.

Matplotlib draws in marker colours that occur nowhere else; in its SVG each becomes a CSS variable. Text stays text, in
the page's font. Everything that names another place (namespaces, document type) is cut away: HTML needs none of it, and
the page then fetches nothing.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from launch.figure_style import figure_style
from partial_fc.evaluation import Evaluation

INK, MUTED, GRID, GENUINE, IMPOSTOR, ACCENT = (f"#0{digit}0a0b" for digit in range(1, 7))
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    GENUINE: "var(--genuine)",
    IMPOSTOR: "var(--impostor)",
    ACCENT: "var(--accent)",
}
STYLE = figure_style(INK, MUTED, GRID) | {
    "svg.fonttype": "none",
    "axes.spines.left": False,
    "grid.linewidth": 0.8,
    "xtick.minor.size": 0,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.4,
}
LARGE, SMALL = (5.2, 3.6), (3.5, 2.1)  # inches at 72 units; the page scales them to its columns
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
UNWANTED = (
    r"<style.*?</style>",  # a rule for the whole page
    r'(?<=<g) id="[^"]*"',  # would repeat within the page, and nothing refers to them
    r"font-family: [^;\"]*; ?",  # the page has its own
)
DASHES, DOTS = (0, (5, 3)), (0, (1, 2.5))


def roc_figure(evaluation: Evaluation) -> str:
    """TAR over FAR on a logarithmic axis, the reported rates as dots, chance as a dotted line."""
    lowest_far = 1 / evaluation.counts["impostor_pairs"]
    _, far, tar = (np.array(column) for column in zip(*evaluation.roc, strict=True))
    counted = far > 0  # FAR 0 has no place on this axis
    with matplotlib.rc_context(STYLE):
        axes = new_axes(LARGE)
        axes.plot(far[counted], tar[counted], color=ACCENT)
        chance = np.geomspace(lowest_far, 1, 100)
        axes.plot(chance, chance, color=MUTED, linewidth=1.2, linestyle=DOTS)
        for name, rate in evaluation.tar_at_far.items():
            axes.plot(float(name), rate, "o", color=ACCENT, markersize=5)
        axes.set_xscale("log")
        decades = range(math.floor(math.log10(lowest_far) + 1e-9), 1)
        axes.set_xticks([10.0**decade for decade in decades], [f"1e{decade}" if decade else "1" for decade in decades])
        axes.minorticks_off()
        axes.set_xlim(lowest_far, 1.15)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("false accept rate (FAR)")
        axes.set_ylabel("true accept rate (TAR)")
        return inline_svg(axes, "ROC curve: true accept rate over false accept rate")


def score_figure(evaluation: Evaluation, *, logarithmic: bool) -> str:
    """Densities of the genuine and the impostor cosines, and two thresholds."""
    with matplotlib.rc_context(STYLE):
        axes = new_axes(LARGE)
        densities = [_density(evaluation.impostor_histogram), _density(evaluation.genuine_histogram)]
        edges = np.linspace(-1, 1, len(densities[0]) + 1)
        floor = min(float(density[density > 0].min()) for density in densities) / 1.5 if logarithmic else 0.0
        kinds = (("impostor pairs", IMPOSTOR), ("genuine pairs", GENUINE))
        for (name, colour), density in zip(kinds, densities, strict=True):
            height = np.maximum(density, floor)
            axes.stairs(height, edges, baseline=floor, fill=True, color=colour, alpha=0.25)
            axes.stairs(height, edges, baseline=floor, color=colour, linewidth=1.4, label=name)
        axes.axvline(evaluation.eer_threshold, color=MUTED, linewidth=1.4, linestyle=DOTS, label="threshold of the EER")
        if evaluation.operating_far is not None:
            label = f"threshold at FAR {evaluation.operating_far}"
            axes.axvline(evaluation.operating_threshold, color=INK, linewidth=1.2, linestyle=DASHES, label=label)
        if logarithmic:
            axes.set_yscale("log")
            axes.minorticks_off()
            axes.set_yticks(*_powers_of_ten(*axes.get_ylim()))
        axes.set_ylim(bottom=floor)
        shown = np.flatnonzero(densities[0] + densities[1])
        axes.set_xlim(edges[shown[0]] - 0.02, edges[shown[-1] + 1] + 0.02)
        axes.set_xlabel("cosine")
        axes.set_ylabel("density")
        axes.legend(loc="lower center", bbox_to_anchor=(0.48, 1.0), ncols=2, columnspacing=1.5)
        return inline_svg(axes, f"Densities of genuine and impostor cosines{', logarithmic' if logarithmic else ''}")


def _density(histogram: Sequence[int]) -> NDArray[np.float64]:
    """Per unit of cosine, in bins twice as wide as the stored ones: a tail of single pairs stays a shape."""
    counts = np.array(histogram, dtype=np.float64).reshape(-1, 2).sum(1)
    return np.asarray(counts * (len(counts) / 2 / counts.sum()))


def bar_figure(bins: Sequence[tuple[str, int]], label: str) -> str:
    """A horizontal bar for each named count, the first on top, with its value behind it."""
    names, counts = zip(*bins, strict=True)
    with matplotlib.rc_context(STYLE | {"axes.grid": False, "axes.spines.bottom": False, "ytick.labelsize": 11}):
        axes = new_axes((6.9, 0.31 * len(bins)))
        edges = [min(count, 1) for count in counts]  # one of millions is seen by its edge
        bars = axes.barh(names, counts, height=0.68, color=ACCENT, edgecolor=ACCENT, linewidth=edges)
        axes.bar_label(bars, [f"{count:,}" for count in counts], padding=6, color=INK, fontsize=11)
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.margins(x=0.15, y=0.02)
        return inline_svg(axes, label)


def _powers_of_ten(low: float, high: float) -> tuple[list[float], list[str]]:
    decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    decades = decades[:: max(1, len(decades) // 5)]
    return [10.0**decade for decade in decades], [f"1e{decade}" if decade else "1" for decade in decades]


def new_axes(size: tuple[float, float]) -> Axes:
    """The one plot of a new figure of so many inches."""
    return Figure(figsize=size, layout="constrained").add_subplot()


def inline_svg(axes: Axes, label: str) -> str:
    """The figure of `axes` as an SVG element that scales to its column; `label` is what a screen reader says."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    text = io.StringIO()
    # Ids are hashes: salted with the label they differ between the page's figures and not between two runs of this.
    with matplotlib.rc_context({"svg.hashsalt": label}):
        figure.savefig(text, format="svg", transparent=True, metadata=NO_METADATA)
    svg = re.sub(r"\s+", " ", text.getvalue())
    svg = re.sub(r'^.*?<svg [^>]*(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{label}">', svg)
    for unwanted in UNWANTED:
        svg = re.sub(unwanted, "", svg)
    for marker, variable in VARIABLES.items():
        svg = svg.replace(marker, variable)
    return svg
