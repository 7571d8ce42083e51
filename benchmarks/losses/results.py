"""What is kept of a run of the loss comparison, and the results as Markdown tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.documents import NOTHING, known, table
from benchmarks.losses.runs import BEYOND, LONG, LOSSES, NOISE, RATES, RUNS
from benchmarks.results import read_json

MOST_POINTS = 60  # of a curve: finer is not seen in a figure
MEASURES = ("rank1", "eer", "tar_at_far", "counts")


@dataclass(frozen=True)
class Curve:
    """Training as it went: means over the report's interval that ends with each `step`."""

    step: list[int]
    loss: list[float | None]
    scale: list[float | None]
    median_target_angle_degrees: list[float | None]


@dataclass(frozen=True)
class Result:
    """One run that came to an end: `outcome` is "finished" or "diverged"; only a finished one has an `evaluation`."""

    name: str
    label: str
    group: str
    seed: int
    outcome: str
    message: str
    settings: dict[str, Any]
    evaluation: dict[str, Any] | None
    curve: Curve
    seconds: float
    machine: dict[str, Any]


def read_results(folder: Path) -> list[Result]:
    """All results in `folder`, as `RUNS` has them, those it no longer has at the end; files that a killed sweep left
    half-written are not among them.
    """
    place = {run.name: number for number, run in enumerate(RUNS)}
    results = [read_json(path, Result) for path in folder.glob("*.json")]
    return sorted(results, key=lambda result: (place.get(result.name, len(place)), result.name, result.seed))


def by_name(results: Iterable[Result]) -> list[list[Result]]:
    """The seeds of each run together, in the order in which the names first come."""
    seeds: dict[str, list[Result]] = {}
    for result in results:
        seeds.setdefault(result.name, []).append(result)
    return list(seeds.values())


def curve(metrics: Sequence[Mapping[str, Any]]) -> Curve:
    """The thinned course of training from the lines of `metrics.jsonl`, its last line always among them."""
    places = np.linspace(0, len(metrics) - 1, min(len(metrics), MOST_POINTS)).round().astype(int)
    kept = [metrics[place] for place in places]
    angles = [line["median_target_angle_radians"] for line in kept]
    return Curve(
        step=[int(line["step"]) for line in kept],
        loss=[_rounded(line["loss"]) for line in kept],
        scale=[_rounded(line["scale"]) for line in kept],
        median_target_angle_degrees=[_rounded(None if a is None else math.degrees(a)) for a in angles],
    )


def measures(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What the comparison keeps of `evaluation.json`."""
    return {name: evaluation[name] for name in MEASURES}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


PART = "losses"
FARS = ("1e-1", "1e-2", "1e-3", "1e-4")
FIGURES = ("rank-1", "EER", *(f"TAR at {far}" for far in FARS), "last angle", "last scale")
HEADINGS = {
    LOSSES: "Clean labels",
    RATES: "Other learning rates",
    NOISE: "Wrong labels",
    BEYOND: "Beyond chance",
    LONG: "12 epochs",
}
OWN_COLUMNS = {LOSSES: (), RATES: ("backbone rate",), NOISE: ("wrong labels",), BEYOND: (), LONG: ("wrong labels",)}


def tables(results: Sequence[Result]) -> str:
    """A table for each group of runs, its rows in the order of `results`; a row is a run, over all its seeds."""
    parts = []
    for group, heading in HEADINGS.items():
        rows = by_name(result for result in results if result.group == group)
        if rows:
            columns = ("loss", "row rate", *OWN_COLUMNS[group], "seeds", *FIGURES)
            cells = ([row[name] for name in columns] for row in map(_cells, rows))
            parts.append(f"### {heading}\n\n{table(columns, cells)}")
    return "\n\n".join(parts) or "No results yet."


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean to three places, and ± the sample's standard deviation where there are two values or more."""
    mean = known(statistics.mean(values) if values else None, ".3f")
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.3f}"


def named(seeds: Sequence[Result], label: str | None = None) -> str:
    """The label of a run, or the one given, and how many of its seeds diverged."""
    diverged = sum(seed.outcome == "diverged" for seed in seeds)
    return (label or seeds[0].label) + (f" ({diverged} of {len(seeds)} diverged)" if diverged else "")


def _cells(seeds: Sequence[Result]) -> dict[str, str]:
    """Every cell that a row of `seeds` may need, by its column's heading. Measures are those of finished seeds."""
    settings = seeds[0].settings
    finished = [seed.evaluation for seed in seeds if seed.evaluation is not None]
    tars = {far: [measures["tar_at_far"].get(far) for measures in finished] for far in FARS}
    return {
        "loss": named(seeds),
        "wrong labels": f"{settings['data.label_noise']:.0%}".replace("%", " %"),
        "row rate": f"{settings['classifier.learning_rate']:g}",
        "backbone rate": f"{settings['optimizer.learning_rate']:g}",
        "seeds": str(len(seeds)),
        "rank-1": mean_and_spread([measures["rank1"] for measures in finished]),
        "EER": mean_and_spread([measures["eer"] for measures in finished]),
        **{
            f"TAR at {far}": mean_and_spread([tar for tar in of_far if tar is not None]) for far, of_far in tars.items()
        },
        "last angle": _last([seed.curve.median_target_angle_degrees for seed in seeds], "°"),
        "last scale": _last([seed.curve.scale for seed in seeds]),
    }


def _last(curves: Sequence[Sequence[float | None]], unit: str = "") -> str:
    ends = [curve[-1] for curve in curves if curve and curve[-1] is not None]
    return f"{statistics.mean(ends):.1f}{unit}" if ends else NOTHING
