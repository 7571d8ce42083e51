"""A plan as a picture: memory of a GPU by part, and a step's time, against the number of GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from launch.figure_style import INK, MUTED, figure_style
from launch.planning.forecast import Forecast
from launch.units import bytes_text, seconds_text

SUFFIXES = (".svg", ".png", ".pdf")
PARTS = {  # a line of the picture: its colour, and the parts of the plan that it sums up
    "class rows and their state": ("#b3202c", ("class rows", "class rows in int8", "row optimizer state")),
    "blocks and kept cosines": ("#f08a24", ("blocks", "kept cosines")),
    "embeddings and statistics": ("#8a6a00", ("embeddings and their gradients", "statistics")),
    "backbone, gradients, state": (
        "#1c7c4a",
        ("backbone weights", "backbone gradients (DDP buckets)", "backbone optimizer state"),
    ),
    "activations": ("#0b5fad", ("activations",)),
    "reserve": (MUTED, ("reserve",)),
}
TIMES = {"backbone": "#1c7c4a", "classifier": "#b3202c", "waiting for others": "#0b5fad"}
STYLE = figure_style() | {"xtick.minor.size": 0, "lines.linewidth": 1.6, "legend.fontsize": 9}


def draw(path: Path, title: str, plans: Sequence[Forecast], memory_bytes: int) -> None:
    """Write the picture to ``path``, in the format of its suffix and without a date."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 5.2), layout="constrained")
        memory, time = figure.subplots(1, 2)
        _draw_memory(memory, plans, memory_bytes)
        _draw_time(time, plans)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5)
        figure.savefig(path, facecolor="white", dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_memory(axes: Axes, plans: Sequence[Forecast], memory_bytes: int) -> None:
    gpus = [plan.gpus for plan in plans]
    axes.plot(gpus, [plan.total_bytes for plan in plans], color=INK, linewidth=2.4, label="all")
    for name, (colour, parts) in PARTS.items():
        axes.plot(
            gpus, [sum(plan.memory_bytes.get(part, 0) for part in parts) for plan in plans], color=colour, label=name
        )
    axes.axhline(memory_bytes, color=INK, linewidth=1.2, linestyle=(0, (5, 3)), label="what a GPU has")
    _dress(axes, "Memory of a GPU, by part", gpus)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value).replace(".00", "")))


def _draw_time(axes: Axes, plans: Sequence[Forecast]) -> None:
    gpus = [plan.gpus for plan in plans]
    axes.plot(gpus, [plan.time.total for plan in plans], color=INK, linewidth=2.4, label="a step")
    values = zip(*((plan.time.backbone, plan.time.head, plan.time.communication) for plan in plans), strict=True)
    for (name, colour), seconds in zip(TIMES.items(), values, strict=True):
        axes.plot(gpus, [value or float("nan") for value in seconds], color=colour, label=name)
    _dress(axes, "Time of a step (roofline at the rates given)", gpus)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds_text(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _dress(axes: Axes, title: str, gpus: Sequence[int]) -> None:
    axes.set_title(title)
    axes.set_xlabel("GPUs")
    axes.set_xscale("log", base=2)
    powers = [number for number in gpus if number & (number - 1) == 0]
    axes.set_xticks(powers, [str(number) for number in powers])
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.13), ncols=2, columnspacing=1.5, handlelength=1.4)
