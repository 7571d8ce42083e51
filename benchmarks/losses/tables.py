"""The results of the loss comparison as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.documents import table
from benchmarks.losses.results import Result, by_name
from benchmarks.losses.runs import LOSSES, NOISE, RATES

PART = "losses"
NOTHING = "–"
FARS = ("1e-1", "1e-2", "1e-3", "1e-4")
FIGURES = ("rank-1", "EER", *(f"TAR at {far}" for far in FARS), "last angle", "last scale")
HEADINGS = {LOSSES: "Clean labels", RATES: "Other learning rates", NOISE: "Wrong labels"}
COLUMNS = {
    LOSSES: ("loss", "row rate", "seeds", *FIGURES),
    RATES: ("loss", "row rate", "backbone rate", "seeds", *FIGURES),
    NOISE: ("loss", "row rate", "wrong labels", "seeds", *FIGURES),
}


def tables(results: Sequence[Result]) -> str:
    """A table for each group of runs, its rows in the order of `results`; a row is a run, over all its seeds."""
    parts = []
    for group, heading in HEADINGS.items():
        rows = by_name(result for result in results if result.group == group)
        if rows:
            columns = COLUMNS[group]
            cells = ([row[name] for name in columns] for row in map(_cells, rows))
            parts.append(f"### {heading}\n\n{table(columns, cells)}")
    return "\n\n".join(parts) or "No results yet."


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean to three places, and ± the sample's standard deviation where there are two values or more."""
    if not values:
        return NOTHING
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.3f}"


def _cells(seeds: Sequence[Result]) -> dict[str, str]:
    """Every cell that a row of `seeds` may need, by its column's heading. Measures are those of finished seeds."""
    settings = seeds[0].settings
    finished = [seed.evaluation for seed in seeds if seed.evaluation is not None]
    diverged = len(seeds) - len(finished)
    tars = {far: [measures["tar_at_far"].get(far) for measures in finished] for far in FARS}
    return {
        "loss": seeds[0].label + (f" ({diverged} of {len(seeds)} diverged)" if diverged else ""),
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
    ends = [curve[-1] for curve in curves if curve]
    known = [end for end in ends if end is not None]
    return f"{statistics.mean(known):.1f}{unit}" if known else NOTHING
