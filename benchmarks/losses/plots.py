"""Draw the loss comparison and write its tables, from whatever results are there.

    python -m benchmarks.losses.plots

reads `docs/experiments/losses/*.json` and `docs/experiments/claims/*.json`; writes `median_angle.svg`,
`slope_length.svg`, `gallery.svg`, `glance.svg` and `claims.svg` into `docs/experiments`, and the tables between the
markers of `docs/experiments.md`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.arguments import parser
from benchmarks.documents import DOCS, with_part
from benchmarks.losses import claim_figures, gallery, glance
from benchmarks.losses.results import PART, Result, by_name, named, read_results, tables
from benchmarks.losses.runs import LOSSES, NUM_CLASSES
from benchmarks.losses.slopes import draw_slopes
from benchmarks.plot_style import figure_at, shades


def main(argv: Sequence[str] | None = None) -> int:
    """Draw and write everything; 0 when done, 2 when the results or the document cannot be used."""
    arguments = parser("losses.plots", __doc__)
    arguments.add_argument("--docs", type=Path, default=DOCS, help="holds experiments.md and experiments/losses/")
    folder = arguments.parse_args(argv).docs
    document = folder / "experiments.md"
    try:
        results, claims = (read_results(folder / "experiments" / table) for table in ("losses", "claims"))
        text = with_part(document.read_text(encoding="utf-8"), PART, tables(results))
        text = with_part(text, glance.PART, glance.tables(results))
        text = with_part(text, claim_figures.PART, claim_figures.tables(claims, results))
    except (OSError, ValueError) as error:
        print(f"plots: {error}", file=sys.stderr)
        return 2
    draw_slopes(folder / "experiments" / "slope_length.svg")
    lines = angle_lines([result for result in results if result.group == LOSSES])
    if lines:
        draw_angles(lines, folder / "experiments" / "median_angle.svg")
    gallery.draw(folder / "experiments" / gallery.FILE.name)
    glance.draw(results, folder / "experiments" / "glance.svg")
    if claims:
        claim_figures.draw(claims, results, folder / "experiments" / "claims.svg")
    document.write_text(text, encoding="utf-8")
    print(f"{len(results) + len(claims)} results in {document} and the figures in {folder / 'experiments'}")
    return 0


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
    colours = shades()
    lines = [_angle_line(seeds, next(colours[seeds[0].settings["objective"]["name"]])) for seeds in by_name(results)]
    return [line for line in lines if line.steps.size]


def draw_angles(lines: Sequence[AngleLine], path: Path) -> None:
    """Draw the median angle between image and class over training into `path`.

    A thick line is the mean over the seeds, the thin ones are the seeds; a line of diverged runs ends in a cross. The
    legend has the lines in the order in which they end.
    """
    title = f"Median angle between an image and its class over training: Omniglot, {NUM_CLASSES:,} classes"
    with figure_at(path, 9.5, 6.0, title) as figure:
        axes = figure.subplots()
        for line in sorted(lines, key=lambda line: line.degrees[-1], reverse=True):
            if len(line.of_seeds) > 1:
                axes.plot(line.steps, np.transpose(line.of_seeds), color=line.colour, linewidth=0.6, alpha=0.45)
            axes.plot(line.steps, line.degrees, color=line.colour, label=f"{line.label}: {line.degrees[-1]:.0f}°")
            if line.is_cut_short:
                axes.plot(line.steps[-1], line.degrees[-1], "x", color=line.colour, markersize=8)
        axes.set_xlim(0, max(line.steps[-1] for line in lines))
        axes.set_xlabel("step")
        axes.set_ylabel("degrees")
        figure.legend(loc="outside right center", fontsize=9)


def _angle_line(seeds: Sequence[Result], colour: str) -> AngleLine:
    """The line of one run: of its finished seeds where there are any, else of the others as far as all of them went."""
    finished = [seed for seed in seeds if seed.outcome == "finished"]
    curves = [seed.curve for seed in finished or seeds]
    length = min(len(curve.step) for curve in curves)
    of_seeds = [
        np.array([math.nan if angle is None else angle for angle in curve.median_target_angle_degrees[:length]])
        for curve in curves
    ]
    return AngleLine(
        named(seeds),
        colour,
        np.array(curves[0].step[:length], dtype=np.int64),
        np.mean(of_seeds, axis=0),
        of_seeds,
        is_cut_short=not finished,
    )


if __name__ == "__main__":
    sys.exit(main())
