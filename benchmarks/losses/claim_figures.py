"""The tables and the figure of `claims.py`, from whatever results are there; `plots.py` writes them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes

from benchmarks.documents import table
from benchmarks.losses.claims import (
    BATCH,
    BATCHES,
    CLAIMS,
    FEW,
    IDENTITIES,
    IMAGES_PER_IDENTITY,
    MARGIN,
    SAMPLED,
    SCALE,
)
from benchmarks.losses.results import Result, by_name, mean_and_spread, named
from benchmarks.losses.runs import NOISE, RUNS, Run
from benchmarks.plot_style import FAMILIES, figure_at

PART = "claims"
AT_REST = ("claims-beyond", "claims-adacos", "scale-arcface-30")  # what the other groups are compared with
WITH_CLIPPED = (*AT_REST, "claims-clipped")  # the same where rows are clipped as well
WITH_MARGIN = ("claims-beyond", "claims-p2sgrad", "claims-adacos", "scale-cosface-30", "scale-arcface-30")
NOISE_RUNS = {
    "beyond-steady-rows0.05": "P2SGrad beyond chance",
    "beyond-steady-rows0.05-clip0.5": "P2SGrad beyond chance, clipped",
    "p2sgrad-kappa0.2-rows0.08": "P2SGrad κ = 0.2",
    "adacos-dynamic-rows0.01": "AdaCos",
    "arcface-30-0.5-rows0.008": "ArcFace",
    "cosface-30-0.35-rows0.004": "CosFace",
}
FARS = ("1e-2", "1e-3")
COLOURS = {
    "P2SGrad beyond chance": FAMILIES["p2sgrad"][0],
    "P2SGrad beyond chance, slower rows": FAMILIES["p2sgrad"][4],
    "P2SGrad beyond chance, clipped": FAMILIES["p2sgrad"][6],
    "P2SGrad κ = 0.2": FAMILIES["p2sgrad"][1],
    "AdaCos": FAMILIES["adacos"][0],
    "ArcFace": FAMILIES["arcface"][0],
    "CosFace": FAMILIES["cosface"][0],
    "NormFace": FAMILIES["cosine_softmax"][0],
}


class Group(NamedTuple):
    """A table and a panel: what is varied, and the value at which the runs of AT_REST stand in it."""

    group: str
    heading: str
    varied: str
    at_rest: float | None = None
    is_logarithmic: bool = False


GROUPS = (
    Group(SCALE, "The scale of a softmax", "scale", is_logarithmic=True),
    Group(MARGIN, "The margin, at a scale of 30", "margin"),
    Group(NOISE, "Wrong labels (28 pixels)", "share of wrong labels"),
    Group(FEW, "Images of each identity, at the same number of steps", "images", IMAGES_PER_IDENTITY, True),
    Group(SAMPLED, "Share of the classes in a step", "share of classes", 1.0, True),
    Group(BATCHES, "Batch", "batch", BATCH, True),
    Group(IDENTITIES, "Identities, of 200,000 drawn images", "identities", is_logarithmic=True),
)


class Point(NamedTuple):
    """The finished seeds of one loss at one value of what is varied; no value: the loss has nothing of the kind."""

    label: str
    varied: float | None
    seeds: list[Result]

    def rank1(self) -> list[float]:
        """Of every seed that finished."""
        return [seed.evaluation["rank1"] for seed in self.seeds if seed.evaluation is not None]


def points(group: Group, claims: Iterable[Result], losses: Iterable[Result]) -> list[Point]:
    """What a group compares, loss by loss, each in the order of what is varied."""
    found = [Point(*_place(run, group), seeds) for run, seeds in _of(group, claims, losses)]
    labels = list(COLOURS)
    return sorted(found, key=lambda point: (labels.index(point.label), point.varied or 0.0))


def tables(claims: Sequence[Result], losses: Sequence[Result]) -> str:
    """A table for each group that has results."""
    parts = []
    for group in GROUPS:
        rows = [_row(point) for point in points(group, claims, losses)]
        if rows:
            columns = ("loss", group.varied, "seeds", "rank-1", "EER", *(f"TAR at {far}" for far in FARS))
            parts.append(f"### {group.heading}\n\n{table(columns, rows)}")
    return "\n\n".join(parts) or "No results yet."


def draw(claims: Sequence[Result], losses: Sequence[Result], path: Path) -> None:
    """Rank-1 against what is varied, a panel for each group, into `path`; a cross where a seed diverged."""
    with figure_at(path, 11.0, 9.5, "Rank-1 on unseen identities against what is varied") as figure:
        grid = list(figure.subplots(3, 3).flat)
        for axes, group in zip(grid, GROUPS, strict=False):
            _draw_group(axes, group, points(group, claims, losses))
        for axes in grid[len(GROUPS) :]:
            axes.set_axis_off()
        handles = {label: line for axes in grid for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        grid[-1].legend(handles.values(), handles.keys(), loc="center left", fontsize=9)


def _draw_group(axes: Axes, group: Group, found: Sequence[Point]) -> None:
    for label, colour in COLOURS.items():
        of_loss = [point for point in found if point.label == label]
        along = [point for point in of_loss if point.varied is not None]
        places, (means, spreads) = [point.varied or 0.0 for point in along], _means_and_spreads(along)
        if along:  # a mean that is not there breaks the line
            axes.errorbar(places, means, spreads, color=colour, label=label, marker="o", markersize=4, capsize=2)
        for point in of_loss:
            if point.varied is None and point.rank1():
                axes.axhline(statistics.mean(point.rank1()), color=colour, linestyle="--", label=label)
        crossed = [place for place, point in zip(places, along, strict=True) if len(point.rank1()) < len(point.seeds)]
        axes.plot(crossed, [0.03] * len(crossed), "x", color=colour, transform=axes.get_xaxis_transform())
    axes.set_title(group.heading, fontsize=9.5)
    axes.set_xlabel(group.varied)
    if group.is_logarithmic:
        axes.set_xscale("log")
        ticks = sorted({point.varied for point in found if point.varied})
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        axes.minorticks_off()


def _means_and_spreads(along: Sequence[Point]) -> tuple[list[float], list[float]]:
    found = [point.rank1() for point in along]
    means = [statistics.mean(values) if values else math.nan for values in found]
    return means, [statistics.stdev(values) if len(values) > 1 else 0.0 for values in found]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _of(group: Group, claims: Iterable[Result], losses: Iterable[Result]) -> list[tuple[Run, list[Result]]]:
    seeds = {own[0].name: own for own in by_name([*claims, *losses])}
    also = {SCALE: (), MARGIN: WITH_MARGIN, IDENTITIES: (), SAMPLED: WITH_CLIPPED, BATCHES: WITH_CLIPPED}.get(
        group.group, AT_REST
    )
    if group.group == NOISE:
        runs = [run for run in RUNS if run.name.partition("-noise")[0] in NOISE_RUNS]
    else:
        runs = [run for run in CLAIMS if run.group == group.group or run.name in also]
    return [(run, seeds[run.name]) for run in runs if run.name in seeds]


def _place(run: Run, group: Group) -> tuple[str, float | None]:
    if group.group == NOISE:
        return NOISE_RUNS[run.name.partition("-noise")[0]], run.label_noise
    if run.group == group.group:
        return run.label, run.varied or None
    if group.group == MARGIN:
        margin = run.objective.get("margin")
        return run.label, None if margin is None else float(margin)
    return run.label, group.at_rest


def _row(point: Point) -> list[str]:
    evaluations = [seed.evaluation for seed in point.seeds if seed.evaluation is not None]
    return [
        named(point.seeds, point.label),
        "none" if point.varied is None else f"{point.varied:,g}",
        str(len(point.seeds)),
        mean_and_spread([measures["rank1"] for measures in evaluations]),
        mean_and_spread([measures["eer"] for measures in evaluations]),
        *(mean_and_spread(_known(measures["tar_at_far"].get(far) for measures in evaluations)) for far in FARS),
    ]
