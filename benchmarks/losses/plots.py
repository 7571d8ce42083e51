"""Draw the loss comparison and write its tables, from whatever results are there.

    python -m benchmarks.losses.plots

reads `docs/experiments/losses/*.json`; writes `docs/experiments/median_angle.svg`, `docs/experiments/slope_length.svg`
and the tables between the markers of `docs/experiments.md`.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from benchmarks.arguments import parser
from benchmarks.documents import DOCS, with_part
from benchmarks.losses.results import PART, Result, by_name, read_results, tables
from benchmarks.losses.runs import LOSSES, RUNS
from benchmarks.losses.slopes import draw_slopes
from benchmarks.plot_style import FAMILIES, figure_at

LABEL_GAP = 0.04  # of the height of the axes


def main(argv: Sequence[str] | None = None) -> int:
    """Draw and write everything; 0 when done, 2 when the results or the document cannot be used."""
    arguments = parser("losses.plots", __doc__)
    arguments.add_argument("--docs", type=Path, default=DOCS, help="holds experiments.md and experiments/losses/")
    folder = arguments.parse_args(argv).docs
    document = folder / "experiments.md"
    try:
        results = in_table_order(read_results(folder / "experiments" / "losses"))
        text = with_part(document.read_text(encoding="utf-8"), PART, tables(results))
    except (OSError, ValueError) as error:
        print(f"plots: {error}", file=sys.stderr)
        return 2
    draw_slopes(folder / "experiments" / "slope_length.svg")
    lines = angle_lines([result for result in results if result.group == LOSSES])
    if lines:
        draw_angles(lines, folder / "experiments" / "median_angle.svg")
    document.write_text(text, encoding="utf-8")
    print(f"{len(results)} results in {document} and the figures in {folder / 'experiments'}")
    return 0


def in_table_order(results: Sequence[Result]) -> list[Result]:
    """`results` as `runs.RUNS` has them, those it no longer has at the end."""
    place = {run.name: number for number, run in enumerate(RUNS)}
    return sorted(results, key=lambda result: (place.get(result.name, len(place)), result.name, result.seed))


class AngleLine(NamedTuple):
    """One loss over training, in degrees; `of_seeds` are the single seeds', on the same steps."""

    label: str
    colour: str
    steps: NDArray[np.int64]
    degrees: NDArray[np.float64]
    of_seeds: list[NDArray[np.float64]]
    is_cut_short: bool


def angle_lines(results: Sequence[Result]) -> list[AngleLine]:
    """A line for each name among `results`: the mean over its seeds."""
    shades = {family: iter(colours * len(results)) for family, colours in FAMILIES.items()}
    lines = [_angle_line(seeds, next(shades[seeds[0].settings["objective"]["name"]])) for seeds in by_name(results)]
    return [line for line in lines if line.steps.size]


def draw_angles(lines: Sequence[AngleLine], path: Path) -> None:
    """Draw the median angle between image and class over training into `path`.

    A thick line is the mean over the seeds, the thin ones are the seeds; a line of diverged runs ends in a cross.
    """
    last = max(int(line.steps[-1]) for line in lines)
    with figure_at(path, 9.5, 6.0) as figure:
        axes = figure.subplots()
        for line in lines:
            if len(line.of_seeds) > 1:
                axes.plot(line.steps, np.transpose(line.of_seeds), color=line.colour, linewidth=0.6, alpha=0.45)
            axes.plot(line.steps, line.degrees, color=line.colour)
            if line.is_cut_short:
                axes.plot(line.steps[-1], line.degrees[-1], "x", color=line.colour, markersize=8)
        axes.set_xlim(0, last)
        _label_ends(axes, lines, last)
        axes.set_xlabel("step")
        axes.set_ylabel("degrees")
        axes.set_title("Median angle between an image and its class over training: Omniglot, 3,856 classes")


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places at least `gap` apart, in the order of `wanted` and as near to it as the sum of squares goes.

    With `rank · gap` taken off, that is the nearest sequence that never falls: neighbours that would are pooled at
    their mean.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    pools: list[list[float]] = []
    for rank, index in enumerate(order):
        pools.append([wanted[index] - rank * gap])
        while len(pools) > 1 and statistics.mean(pools[-2]) >= statistics.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    rising = [statistics.mean(pool) for pool in pools for _ in pool]
    places = {index: rising[rank] + rank * gap for rank, index in enumerate(order)}
    return [places[index] for index in range(len(wanted))]


def _angle_line(seeds: Sequence[Result], colour: str) -> AngleLine:
    """The line of one run: of its finished seeds where there are any, else of the others as far as all of them went."""
    finished = [seed for seed in seeds if seed.outcome == "finished"]
    curves = [seed.curve for seed in finished or seeds]
    length = min(len(curve.step) for curve in curves)
    of_seeds = [
        np.array([math.nan if angle is None else angle for angle in curve.median_target_angle_degrees[:length]])
        for curve in curves
    ]
    diverged = len(seeds) - len(finished)
    return AngleLine(
        seeds[0].label + (f" ({diverged} of {len(seeds)} diverged)" if diverged else ""),
        colour,
        np.array(curves[0].step[:length], dtype=np.int64),
        np.mean(of_seeds, axis=0),
        of_seeds,
        is_cut_short=not finished,
    )


def _label_ends(axes: Axes, lines: Sequence[AngleLine], last: int) -> None:
    """Name each line beside the axes, with a thin guide from where it ends."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    ends = [float(line.degrees[-1]) for line in lines]
    for line, end, place in zip(lines, ends, spread(ends, LABEL_GAP * (high - low)), strict=True):
        axes.plot([line.steps[-1], 1.02 * last], [end, place], color=line.colour, linewidth=0.7, clip_on=False)
        axes.text(1.03 * last, place, f"{line.label}: {end:.0f}°", color=line.colour, va="center", fontsize=9)


if __name__ == "__main__":
    sys.exit(main())
