"""Time and memory of a step against the classes, the batch and the sampling rate: a picture of two panels for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from benchmarks.classifier.case import DENSE, OURS, Case
from benchmarks.classifier.records import Measurement, Record
from benchmarks.performance.cases import BATCH, CLASSES, CLASSES_OVER_BATCHES
from benchmarks.plot_style import FAMILIES, figure_at
from launch.figure_style import MUTED

NAMES = {"p2sgrad": "P2SGrad", "adacos": "AdaCos", "cosface": "CosFace", "arcface": "ArcFace"}
DOTS = (0, (1, 2))
GREY = "cosine_softmax"


class Picture(NamedTuple):
    """One picture: what varies along it, and which records are on it."""

    name: str
    title: str
    axis: str
    place: Callable[[Case], float]
    shows: Callable[[Case], bool]


class Point(NamedTuple):
    """One contender of one record, on one picture."""

    place: float
    measurement: Measurement


def pictures(device: str) -> list[Picture]:
    """What is drawn of the cases on `device`."""
    C, C_over_batches = CLASSES[device], CLASSES_OVER_BATCHES[device]
    classes, batch = f"One step of N = {BATCH}", f"One step over C = {C_over_batches:,} classes"
    return [
        Picture(
            "classes",
            f"{classes}, against the number of classes",
            "classes C",
            lambda case: case.num_classes,
            lambda case: case.batch == BATCH and _is_plain(case),
        ),
        Picture(
            "batch",
            f"{batch}, against the batch",
            "batch N",
            lambda case: case.batch,
            lambda case: case.num_classes == C_over_batches and _is_plain(case),
        ),
        Picture(
            "rate",
            f"{classes} over C = {C:,} classes, against the share of classes sampled",
            "sampling rate",
            lambda case: case.sample_rate,
            lambda case: case.num_classes == C and case.objective == "cosface",
        ),
    ]


def drawn(records: Mapping[str, Record], folder: Path, device: str) -> list[Path]:
    """Draw every picture that has a line; the paths of those."""
    paths = []
    for picture in pictures(device):
        if lines := lines_of(picture, records.values()):
            paths.append(folder / f"{picture.name}.svg")
            _draw(picture, lines, paths[-1])
    return paths


def lines_of(picture: Picture, records: Iterable[Record]) -> dict[str, list[Point]]:
    """The points of each line of `picture` from left to right, two or more of them.

    Where two records tell of one place, the first does.
    """
    lines: dict[str, dict[float, Point]] = {}
    for record in records:
        if not picture.shows(record.case):
            continue
        for measurement in (record.ours, None if record.case.against == OURS else record.against):
            if measurement is not None:
                place = picture.place(record.case)
                line = lines.setdefault(_label(picture, record.case, measurement), {})
                line.setdefault(place, Point(place, measurement))
    return {
        label: [points[place] for place in sorted(points)] for label, points in sorted(lines.items()) if len(points) > 1
    }


def _is_plain(case: Case) -> bool:
    """Whether nothing but what a picture shows is unusual about it; bfloat16 moments and no momentum take less."""
    is_full = case.sample_rate == 1.0 and case.world == 1
    return is_full and case.row_optimizer == "sgd" and case.weight_dtype == "float32"


def _label(picture: Picture, case: Case, measurement: Measurement) -> str:
    if measurement.contender == DENSE:
        is_sampled = case.rate_against < 1.0 and picture.name != "rate"
        return f"dense, {case.rate_against:.0%} of classes".replace("%", " %") if is_sampled else "dense"
    words = [NAMES[case.objective], *(["bfloat16"] if case.dtype == "bfloat16" else [])]
    if case.momentum == 0.0:
        return ", ".join([*words, "no momentum"])
    return ", ".join([*words, *(["momentum in bfloat16"] if case.state_dtype == "bfloat16" else [])])


def _draw(picture: Picture, lines: Mapping[str, list[Point]], path: Path) -> None:
    colours = _colours(lines)
    with figure_at(path, 10.0, 4.4) as figure:
        times, memory = figure.subplots(1, 2)
        for label, points in lines.items():
            places = [point.place for point in points]
            found, colour = [point.measurement for point in points], colours[label]
            times.plot(places, [each.median_seconds for each in found], "o-", color=colour, label=label)
            memory.plot(places, [each.peak_bytes / 1e9 for each in found], "o-", color=colour)
            memory.plot(places, [each.held_bytes / 1e9 for each in found], color=colour, linestyle=DOTS)
        places = sorted({point.place for points in lines.values() for point in points})
        _finish(times, places, picture.axis, "seconds a step")
        _finish(memory, places, picture.axis, "peak GB above the start; dotted: weights and state")
        figure.suptitle(picture.title, x=0.01, ha="left", fontsize=10.5)
        figure.legend(loc="outside lower center", ncols=4, fontsize=9)


def _numeral(value: float, place: int) -> str:
    """1e6 as 1M, 2e5 as 200k, 0.05 as it is."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}"


def _colours(lines: Mapping[str, list[Point]]) -> dict[str, str]:
    """A shade for each line, of its loss's family; the dense ones are grey."""
    shades = {name: iter(family) for name, family in FAMILIES.items()}
    families = {name: family for family, name in NAMES.items()}
    return {label: next(shades[families.get(label.partition(",")[0], GREY)], FAMILIES[GREY][-1]) for label in lines}


def _finish(axes: Axes, places: Sequence[float], across: str, title: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_numeral))
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel(across)
    axes.set_title(title, color=MUTED)
    for line in axes.get_lines():
        line.set_markersize(3.5)
