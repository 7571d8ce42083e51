"""The report's figures as inline SVG in the page's own colours, so that one drawing suits light and dark.

Matplotlib draws in marker colours that occur nowhere else; in its SVG each becomes a CSS variable. Text stays text, in
the page's font. Everything that names another place (namespaces, document type) is cut away: HTML needs none of it, and
the page then fetches nothing.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
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
MOST_POINTS = 1200  # of one curve: more cannot be told apart at the width of a page
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
UNWANTED = (
    r"<style.*?</style>",  # a rule for the whole page
    r'(?<=<g) id="[^"]*"',  # would repeat within the page, and nothing refers to them
    r"font-family: [^;\"]*; ?",  # the page has its own
)
DASHES, DOTS = (0, (5, 3)), (0, (1, 2.5))


class Curve(NamedTuple):
    """One quantity of a run over its steps: its heading, its last value as text, and the drawing."""

    name: str
    last: str
    svg: str


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


def stage_begins(metrics: Sequence[Mapping[str, Any]], stages: Sequence[str]) -> list[tuple[int, str]]:
    """The steps done when each stage but the first began, as far as the records tell, and the stage's name."""
    records, begins = _by_step(metrics), list[tuple[int, str]]()
    for before, after in pairwise(records):
        number = int(after.get("stage") or 1)
        if number != (before.get("stage") or 1) and number <= len(stages):
            begins.append((int(before["step"]), stages[number - 1]))
    return begins


def _by_step(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records in the order of their steps; of a step that was run twice the last one."""
    by_step = {int(record["step"]): record for record in metrics if record.get("step") is not None}
    return [by_step[step] for step in sorted(by_step)]


def training_curves(metrics: Sequence[Mapping[str, Any]], stages: Sequence[str] = ()) -> list[Curve]:
    """The curves of those quantities that the records hold; of a step that was run twice the last record counts.

    A thin line with its name, of ``stages``, stands where each stage of the run but the first begins.
    """
    records, begins = _by_step(metrics), stage_begins(metrics, stages)
    quantities: list[tuple[str, str, float, Callable[[float], str]]] = [
        ("loss", "Loss", 1, "{:.4g}".format),
        ("scale", "Scale s", 1, "{:.2f}".format),
        ("median_target_angle_radians", "Median target angle", 180 / math.pi, "{:.1f}°".format),
        ("images_per_second", "Images per second", 1, "{:,.0f}".format),
        ("learning_rate", "Learning rate", 1, "{:.3g}".format),
        ("goodput_ratio", "Goodput so far", 100, "{:.1f} %".format),
    ]
    curves = []
    for key, name, unit, text in quantities:
        points = [(record["step"], record[key] * unit) for record in records if record.get(key) is not None]
        steps_values = np.array([point for point in points if math.isfinite(point[1])], dtype=np.float64)
        if len(steps_values) > 0:
            svg = _curve_figure(name, _thinned(steps_values), key, begins)
            curves.append(Curve(name, text(float(steps_values[-1, 1])), svg))
    return curves


def _curve_figure(
    name: str, steps_values: NDArray[np.float64], key: str, begins: Sequence[tuple[int, str]] = ()
) -> str:
    with matplotlib.rc_context(STYLE):
        axes = new_axes(SMALL)
        steps, values = steps_values.T
        axes.plot(steps, values, color=ACCENT, marker="o" if len(steps) == 1 else None, markersize=4)
        if key == "median_target_angle_radians":
            axes.axhline(45, color=MUTED, linewidth=1.2, linestyle=DOTS)
            axes.set_ylim(0, max(95.0, float(values.max()) * 1.03))
            axes.set_yticks([0, 45, 90], ["0°", "45°", "90°"])
        else:
            low, high = float(values.min()), float(values.max())
            margin = 0.07 * (high - low) or abs(high) * 0.1 or 1.0
            # A rate or a loss that halved is read against zero; a scale that moves by a tenth is not.
            from_zero = low >= 0 and (low < 0.5 * high or key == "images_per_second")
            axes.set_ylim(0 if from_zero else low - margin, high + margin)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        for step, stage in begins:
            axes.axvline(step, color=MUTED, linewidth=0.8)
            beside = axes.get_xaxis_transform()
            axes.text(step, 0.98, stage, transform=beside, rotation=90, ha="left", va="top", size=8, color=MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("step")
        return inline_svg(axes, f"{name} over the steps of the run")


def _thinned(steps_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lowest and the highest point of each stretch, so that no spike is lost."""
    if len(steps_values) <= MOST_POINTS:
        return steps_values
    keep = {0, len(steps_values) - 1}
    for stretch in np.array_split(np.arange(len(steps_values)), MOST_POINTS // 2 - 1):
        values = steps_values[stretch, 1]
        keep |= {int(stretch[values.argmin()]), int(stretch[values.argmax()])}
    return steps_values[sorted(keep)]


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
