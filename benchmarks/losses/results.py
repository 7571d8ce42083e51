"""What is kept of a run of the loss comparison: one JSON file each, whole or not there; a line in it is a field."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

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


def result_path(folder: Path, name: str, seed: int) -> Path:
    """Where the result of a run is kept."""
    return folder / f"{name}-seed{seed}.json"


def write_result(result: Result, folder: Path) -> Path:
    """Keep `result` in `folder`: the file appears under its name when all of it is on the disk. Gives back its path."""
    path = result_path(folder, result.name, result.seed)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f" {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in asdict(result).items()]
    with partial.open("w", encoding="utf-8") as file:
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return path


def read_result(path: Path) -> Result:
    """The result in `path`. ValueError if the file holds something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        expected = {field.name for field in fields(Result)}
        if not isinstance(values, dict) or values.keys() != expected:
            raise ValueError(f"expected an object of {sorted(expected)}")
        return Result(**{**values, "curve": Curve(**values["curve"])})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no result of a loss run ({error}): remove it to run it again") from error


def read_results(folder: Path) -> list[Result]:
    """All results in `folder`, by name and seed; files that a killed sweep left half-written are not among them."""
    return sorted(map(read_result, folder.glob("*.json")), key=lambda result: (result.name, result.seed))


def by_name(results: Iterable[Result]) -> list[list[Result]]:
    """The seeds of each run together, in the order in which the names first come."""
    seeds: dict[str, list[Result]] = {}
    for result in results:
        seeds.setdefault(result.name, []).append(result)
    return list(seeds.values())


def curve(metrics: Sequence[Mapping[str, Any]]) -> Curve:
    """The thinned course of training from the lines of `metrics.jsonl`, its last line always among them."""
    kept = _thinned(metrics, MOST_POINTS)
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


def _thinned(lines: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    if len(lines) <= most:
        return list(lines)
    return [lines[round(place * (len(lines) - 1) / (most - 1))] for place in range(most)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
