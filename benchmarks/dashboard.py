"""The panels of Grafana's dashboard, drawn from a Prometheus that has scraped a run.

    python -m benchmarks.dashboard http://127.0.0.1:9090 --run omniglot --out docs/images/dashboard.png

It reads `launch/monitoring/grafana/dashboard.json` as Grafana does: panels at their places of the grid, each query of
a panel asked for the time of the run. It is no Grafana: colours and letters are this project's.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from benchmarks.arguments import parser
from benchmarks.documents import DOCS
from benchmarks.plot_style import figure_at
from launch.monitoring.dashboard import FILE, GRID_WIDTH
from launch.units import bytes_text, seconds_text

POINTS = 300
INCHES_OF_CELL = 0.55, 0.31
LEFT_MARGINS = {"stat": 0.01, "timeseries": 0.055, "status-history": 0.1}
Numbers = np.ndarray[tuple[int], np.dtype[np.float64]]
Series = tuple[str, Numbers, Numbers]  # legend, minutes since the start, values
UNITS: dict[str, Callable[[float], str]] = {
    "s": seconds_text,
    "bytes": bytes_text,
    "binBps": lambda value: f"{bytes_text(value)}/s",
    "percentunit": lambda value: f"{100 * value:.3g} %",
    "degree": lambda value: f"{value:.3g}°",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the panels. 0: drawn; 1: Prometheus knows no such run."""
    arguments = _parser().parse_args(argv)
    start, end = _times(arguments.prometheus, arguments.run)
    if not start < end:
        print(f"dashboard: {arguments.prometheus} knows no run {arguments.run!r}", file=sys.stderr)
        return 1
    panels = json.loads(FILE.read_text(encoding="utf-8"))["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    width, height = GRID_WIDTH * INCHES_OF_CELL[0], rows * INCHES_OF_CELL[1]
    with figure_at(arguments.out, width, height) as figure:
        figure.set_layout_engine("none")
        for panel in panels:
            found = list(_series(panel, arguments.prometheus, arguments.run, start, end))
            _draw(figure, panel, found, rows)
    return 0


def _parser() -> Any:
    made = parser("dashboard", __doc__)
    made.add_argument("prometheus", help="its address, such as http://127.0.0.1:9090")
    made.add_argument("--run", required=True, help="the name of the run's folder")
    made.add_argument("--out", type=Path, default=DOCS / "images" / "dashboard.png")
    return made


def _asked(prometheus: str, path: str, **words: object) -> Any:
    with urlopen(f"{prometheus}/api/v1/{path}?{urlencode(words)}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def _times(prometheus: str, run: str) -> tuple[float, float]:
    """When the run was scraped first and last, since 1970; nothing of the kind where it never was."""
    found = _asked(prometheus, "query", query=f'partial_fc_step{{run="{run}"}}[1d]')
    stamps = [stamp for series in found for stamp, _ in series["values"]]
    return (min(stamps), max(stamps)) if stamps else (0.0, 0.0)


def _series(panel: Any, prometheus: str, run: str, start: float, end: float) -> Iterator[Series]:
    step = max((end - start) / POINTS, 1.0)
    for target in panel.get("targets", ()):
        query = target["expr"].replace("$__rate_interval", "1m").replace("$run", run).replace("$node", ".*")
        for found in _asked(prometheus, "query_range", query=query, start=start, end=end, step=step):
            stamps, values = np.array([(float(stamp), float(value)) for stamp, value in found["values"]]).T
            legend = target["legendFormat"]
            for name, value in found["metric"].items():
                legend = legend.replace(f"{{{{{name}}}}}", value)
            yield legend, (stamps - start) / 60, values


def _draw(figure: Figure, panel: Any, found: Sequence[Series], rows: int) -> None:
    place = panel["gridPos"]
    left, top = place.get("x", 0) / GRID_WIDTH, 1 - place.get("y", 0) / rows
    width, height = place["w"] / GRID_WIDTH, place["h"] / rows
    if panel["type"] == "row":
        figure.text(0.01, top - height / 2, panel["title"], fontsize=13, weight="bold", va="center")
        return
    left += LEFT_MARGINS[panel["type"]]
    box = left, top - height + 1.5 / rows, width - LEFT_MARGINS[panel["type"]] - 0.012, height - 2.9 / rows
    axes = figure.add_axes(box)
    text = UNITS.get(panel["fieldConfig"]["defaults"]["unit"], _plain)
    axes.set_title(panel["title"], fontsize=9)
    if panel["type"] == "stat":
        axes.set_axis_off()
        axes.text(0.0, 0.3, text(found[0][2][-1]) if found else "no data", fontsize=20, transform=axes.transAxes)
        return
    axes.tick_params(labelsize=7)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    (_cells if panel["type"] == "status-history" else _lines)(axes, panel, found, text)


def _plain(value: float) -> str:
    return f"{value:,.4g}"


def _lines(axes: Axes, panel: Any, found: Sequence[Series], text: Callable[[float], str]) -> None:
    if panel["fieldConfig"]["defaults"]["custom"].get("stacking", {}).get("mode") == "normal":
        minutes = np.unique(np.concatenate([each[1] for each in found]))
        stacked = [np.interp(minutes, each[1], np.nan_to_num(each[2])) for each in found]
        axes.stackplot(minutes, stacked, labels=[each[0] for each in found], alpha=0.7)
    else:
        for legend, minutes, values in found:
            axes.plot(minutes, values, label=legend, linewidth=1.2)
        if all(np.nanmin(each[2], initial=0.0) >= 0 for each in found):
            axes.set_ylim(bottom=0)
    if found:
        axes.legend(fontsize=6.5, loc="best", ncols=1 + (len(found) > 3))
    if panel["fieldConfig"]["defaults"]["unit"] == "bytes":
        axes.yaxis.set_major_locator(MultipleLocator(2 ** math.floor(math.log2(max(axes.get_ylim()[1] / 3, 1)))))


def _cells(axes: Axes, panel: Any, found: Sequence[Series], text: Callable[[float], str]) -> None:
    """A line of cells for each rank: pale is the least of all, dark the most."""
    worst = max((float(np.nanmax(values)) for *_, values in found), default=0.0)
    for number, (_, minutes, values) in enumerate(found):
        edges = np.append(minutes, minutes[-1] + (minutes[-1] - minutes[0]) / max(len(minutes) - 1, 1))
        axes.pcolormesh(edges, [number - 0.4, number + 0.4], values[None], vmin=0, vmax=worst or 1, cmap="YlOrRd")
    axes.set_yticks(range(len(found)), [each[0] for each in found])
    axes.grid(visible=False)
    if math.isfinite(worst):
        axes.set_title(f"{panel['title']}: up to {text(worst)}", fontsize=9)


if __name__ == "__main__":
    sys.exit(main())
