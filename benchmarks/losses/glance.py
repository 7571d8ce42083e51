"""The losses at a glance: each at its best row rate, in short and in long runs, with right and with wrong labels."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.documents import NOTHING, table
from benchmarks.losses import claim_figures
from benchmarks.losses.results import Result, mean_and_spread
from benchmarks.plot_style import FAMILIES, figure_at

PART = "glance"
SHORT, LONG = "2 epochs", "12 epochs"
ALONE = "P2SGrad beyond chance, alone"  # in long runs without AdaCos at the end
RUNS_OF = {  # by loss and length; with wrong labels a run's name goes on as SUFFIXES has it
    ("P2SGrad beyond chance", SHORT): "beyond-steady-rows0.05",
    ("AdaCos", SHORT): "adacos-dynamic-rows0.01",
    ("ArcFace", SHORT): "arcface-30-0.5-rows0.008",
    ("CosFace", SHORT): "cosface-30-0.35-rows0.004",
    ("P2SGrad κ = 0.2", SHORT): "p2sgrad-kappa0.2-rows0.08",
    ("P2SGrad beyond chance", LONG): "long-fading-then-adacos",
    (ALONE, LONG): "long-steady",
    ("AdaCos", LONG): "long-adacos",
    ("ArcFace", LONG): "long-arcface-30-0.5",
    ("CosFace", LONG): "long-cosface-30-0.35",
    ("P2SGrad κ = 0.2", LONG): "long-p2sgrad-kappa0.2",
}
SUFFIXES = {0: "", 20: "-noise20", 40: "-noise40"}  # by the percentage of wrong labels
MEASURES = ("rank-1", "TAR at FAR 1e-3")
COLOURS = {**claim_figures.COLOURS, ALONE: FAMILIES["p2sgrad"][4]}


def figures(results: Sequence[Result], name: str, measure: str) -> list[float]:
    """The measure of each seed of a run that finished."""
    evaluations = [each.evaluation for each in results if each.name == name and each.evaluation is not None]
    found = [each["rank1"] if measure == MEASURES[0] else each["tar_at_far"].get("1e-3") for each in evaluations]
    return [figure for figure in found if figure is not None]


def tables(results: Sequence[Result]) -> str:
    """A row for each loss and length, and in it each measure by the share of wrong labels."""
    columns = ["loss", "epochs"]
    for measure in MEASURES:
        columns += [f"{percent} % wrong" if percent else measure for percent in SUFFIXES]
    rows = [
        [
            loss,
            length.partition(" ")[0],
            *(_cell(results, name + suffix, measure) for measure in MEASURES for suffix in SUFFIXES.values()),
        ]
        for (loss, length), name in RUNS_OF.items()
    ]
    return table(columns, rows)


def _cell(results: Sequence[Result], name: str, measure: str) -> str:
    if found := figures(results, name, measure):
        return mean_and_spread(found)
    return "diverged" if any(each.name == name and each.evaluation is None for each in results) else NOTHING


def draw(results: Sequence[Result], path: Path) -> None:
    """Both measures against the share of wrong labels, short runs beside long ones, into ``path``."""
    title = "The losses at their best row rates: unseen characters, against the share of wrong labels in training"
    with figure_at(path, 9.5, 6.6, title) as figure:
        grid = figure.subplots(2, 2, sharex=True, sharey="row")
        for (measure, length), axes in zip(((m, n) for m in MEASURES for n in (SHORT, LONG)), grid.flat, strict=True):
            _draw_panel(axes, results, measure, length)
        told = [axes.get_legend_handles_labels() for axes in grid.flat]
        lines = {label: line for handles in told for line, label in zip(*handles, strict=True)}
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3, fontsize=9)


def _draw_panel(axes: Axes, results: Sequence[Result], measure: str, length: str) -> None:
    for (loss, of_length), name in RUNS_OF.items():
        by_share = {percent: figures(results, name + suffix, measure) for percent, suffix in SUFFIXES.items()}
        there = {percent: found for percent, found in by_share.items() if found}
        if of_length == length and there:
            means = [statistics.mean(found) for found in there.values()]
            axes.plot(list(there), means, "o-", markersize=4, color=COLOURS[loss], label=loss)
            for percent, found in there.items():
                axes.plot([percent] * len(found), found, "_", markersize=7, color=COLOURS[loss], alpha=0.6)
    axes.set_title(length, loc="left", fontsize=10)
    axes.set_ylabel(measure)
    axes.set_xticks(list(SUFFIXES), [f"{percent} %" for percent in SUFFIXES])
    axes.label_outer()
