"""Figures that the protocols ask for: DET curve, cumulative match, error against the share rejected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import matplotlib
from matplotlib.ticker import MaxNLocator, PercentFormatter

from launch.pages.figures import ACCENT, DASHES, DOTS, LARGE, MUTED, STYLE, inline_svg, new_axes

RATES = (1e-6, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8)
LINES = ("-", DASHES, DOTS)


def det_figure(roc: Sequence[tuple[float, float, float]]) -> str:
    """False rejects over false accepts, both on the scale of normal deviates (Martin et al. 1997).

    Scores that are normal make it a straight line. Rates of 0 and 1 have no place on this scale and are left out.
    """
    points = [(far, 1 - tar) for _, far, tar in roc if 0 < far < 1 and 0 < tar < 1]
    with matplotlib.rc_context(STYLE):
        axes = new_axes(LARGE)
        lowest = min((min(point) for point in points), default=0.01)
        shown = [rate for rate in RATES if rate >= lowest / 2] or [0.5]
        ticks = [_deviate(rate) for rate in shown]
        far, frr = ([_deviate(point[side]) for point in points] for side in (0, 1))
        axes.plot(far, frr, color=ACCENT)
        axes.plot(ticks, ticks, color=MUTED, linewidth=1.2, linestyle=DOTS)  # where the two rates are equal
        names = [f"{rate:g}" if rate >= 0.001 else f"1e{round(math.log10(rate))}" for rate in shown]
        axes.set_xticks(ticks, names)
        axes.set_yticks(ticks, names)
        axes.set_xlabel("false accept rate (FAR)")
        axes.set_ylabel("false reject rate (1 - TAR)")
        return inline_svg(axes, "DET curve: false reject rate over false accept rate")


def _deviate(rate: float) -> float:
    return NormalDist().inv_cdf(rate)


def cmc_figure(curves: Mapping[str, Sequence[float]]) -> str:
    """The share of probes whose mate is among the best k, over k; a line for each named curve."""
    with matplotlib.rc_context(STYLE):
        axes = new_axes(LARGE)
        for at, (name, shares) in enumerate(curves.items()):
            axes.plot(range(1, len(shares) + 1), shares, color=ACCENT, linestyle=LINES[at % len(LINES)], label=name)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.set_xlabel("rank k")
        axes.set_ylabel("mate among the best k")
        if len(curves) > 1:
            axes.legend(loc="lower right")
        return inline_svg(axes, "Cumulative match: share of probes whose mate is among the best k")


def rejection_figure(points: Sequence[tuple[float, float]]) -> str:
    """The share of genuine pairs that are rejected wrongly, over the share of pairs left out for short embeddings."""
    with matplotlib.rc_context(STYLE):
        axes = new_axes(LARGE)
        share, error = zip(*points, strict=True)
        axes.plot(share, error, color=ACCENT, marker="o", markersize=3)
        axes.axhline(error[0], color=MUTED, linewidth=1.2, linestyle=DOTS)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.1 * max(error) or 1)
        axes.set_xlabel("share left out, shortest embeddings first")
        axes.set_ylabel("false reject rate of the rest")
        return inline_svg(axes, "False reject rate against the share of pairs left out by embedding length")
