"""What is kept of a run of the loss comparison."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
    images_per_second: float | None
    seconds: float
    machine: dict[str, Any]


def read_results(folder: Path) -> list[Result]:
    """All results in `folder`, by name and seed; files that a killed sweep left half-written are not among them."""
    results = [read_json(path, Result) for path in folder.glob("*.json")]
    return sorted(results, key=lambda result: (result.name, result.seed))


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


def typical_speed(metrics: Sequence[Mapping[str, Any]]) -> float | None:
    """The median over the reports of the images per second of all ranks; None without a report."""
    speeds = [float(line["images_per_second"]) for line in metrics]
    return round(statistics.median(speeds), 1) if speeds else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
