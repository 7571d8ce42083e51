"""Time and memory of a step against the classes, the batch and the sampling rate: a picture of two panels for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from benchmarks.classifier.case import CHUNKED, DENSE, OURS, Case
from benchmarks.classifier.records import Measurement, Record
from benchmarks.performance.cases import BATCH, CLASSES, CLASSES_OVER_BATCHES
from benchmarks.plot_style import figure_at, shades
from launch.figure_style import MUTED

NAMES = {
    "p2sgrad": "P2SGrad",
    "p2sgrad_beyond_chance": "P2SGrad beyond chance",
    "adacos": "AdaCos",
    "cosface": "CosFace",
    "arcface": "ArcFace",
}
DOTS = (0, (1, 2))
GREY = "cosine_softmax"  # of the dense ones
PLAIN = {"sample_rate": 1.0, "world": 1, "row_optimizer": "sgd", "weight_dtype": "float32", "near_classes": 0}
Line = dict[float, Measurement]  # a contender at each place of a picture, from left to right


class Picture(NamedTuple):
    """One picture: the field of a case that varies along it, and what the cases on it have in common."""

    name: str
    title: str
    axis: str
    field: str
    common: dict[str, Any]

    def shows(self, case: Case) -> bool:
        """Whether the case is on it."""
        return all(getattr(case, field) == value for field, value in self.common.items())


def pictures(device: str) -> list[Picture]:
    """What is drawn of the cases on `device`."""
    C, C_of_batches = CLASSES[device], CLASSES_OVER_BATCHES[device]
    classes, batch = {"batch": BATCH, **PLAIN}, {"num_classes": C_of_batches, **PLAIN}
    rate, step = {"batch": BATCH, "num_classes": C, "objective": "cosface"}, f"One step of N = {BATCH}"
    of_batch = f"One step over C = {C_of_batches:,} classes, against the batch"
    of_rate = f"{step} over C = {C:,} classes, against the share of classes sampled"
    return [
        Picture("classes", f"{step}, against the number of classes", "classes C", "num_classes", classes),
        Picture("batch", of_batch, "batch N", "batch", batch),
        Picture("rate", of_rate, "sampling rate", "sample_rate", rate),
    ]


def drawn(records: Mapping[str, Record], folder: Path, device: str) -> list[Path]:
    """Draw every picture that has a line; the paths of those."""
    paths = []
    for picture in pictures(device):
        if lines := lines_of(picture, records.values()):
            paths.append(folder / f"{picture.name}.svg")
            _draw(picture, lines, paths[-1])
    return paths


def lines_of(picture: Picture, records: Iterable[Record]) -> dict[str, Line]:
    """The lines of `picture` that have two points or more. Where two records tell of one place, the first does.

    None where no line is ours: a picture of the others alone would say nothing.
    """
    ours = set[str]()
    lines: dict[str, Line] = {}
    for record in filter(lambda record: picture.shows(record.case), records):
        for measurement in (record.ours, None if record.case.against == OURS else record.against):
            if measurement is not None:
                label = _label(picture, record.case, measurement)
                ours |= {label} if measurement is record.ours else set()
                line = lines.setdefault(label, {})
                line.setdefault(getattr(record.case, picture.field), measurement)
    found = {label: dict(sorted(line.items())) for label, line in sorted(lines.items()) if len(line) > 1}
    return found if ours & found.keys() else {}


def _label(picture: Picture, case: Case, measurement: Measurement) -> str:
    if measurement.contender == DENSE:
        is_sampled = case.rate_against < 1.0 and picture.name != "rate"
        return f"dense, {case.rate_against:.0%} of classes".replace("%", " %") if is_sampled else "dense"
    if measurement.contender == CHUNKED:
        return "torch, in chunks"
    words = [NAMES[case.objective], *(["bfloat16"] if case.dtype == "bfloat16" else [])]
    if case.momentum == 0.0:
        return ", ".join([*words, "no momentum"])
    return ", ".join([*words, *(["momentum in bfloat16"] if case.state_dtype == "bfloat16" else [])])


def _draw(picture: Picture, lines: Mapping[str, Line], path: Path) -> None:
    families, colours = {name: family for family, name in NAMES.items()}, shades()
    with figure_at(path, 10.0, 4.4, picture.title) as figure:
        times, memory = figure.subplots(1, 2)
        for label, line in lines.items():
            colour = next(colours[families.get(label.partition(",")[0], GREY)])
            times.plot(list(line), [each.median_seconds for each in line.values()], "o-", color=colour, label=label)
            memory.plot(list(line), [each.peak_bytes / 1e9 for each in line.values()], "o-", color=colour)
            memory.plot(list(line), [each.held_bytes / 1e9 for each in line.values()], color=colour, linestyle=DOTS)
        places = sorted({place for line in lines.values() for place in line})
        _finish(times, places, picture.axis, "seconds a step")
        _finish(memory, places, picture.axis, "peak GB above the start; dotted: weights and state")
        figure.legend(loc="outside lower center", ncols=4, fontsize=9)


def _numeral(value: float, place: int) -> str:
    """1e6 as 1M, 2e5 as 200k, 0.05 as it is."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}"


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
