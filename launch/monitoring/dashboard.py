"""The dashboard of a run for Grafana: ``python -m launch.monitoring.dashboard`` writes ``grafana/dashboard.json`` anew.

``ROWS`` is the table of its panels; grafana-foundation-sdk, which the ``test`` extra installs, makes Grafana's JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statushistory, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, GraphDrawStyle, StackingMode, VisibilityMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    FieldColorModeId,
    VariableRefresh,
    VariableSort,
)

FILE = Path(__file__).parent / "grafana" / "dashboard.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
CHOSEN = '{run="$run", node=~"$node"}'
STEPS = f"rate(partial_fc_steps_total{CHOSEN}[$__rate_interval])"
GRID_WIDTH = 24


@dataclass(frozen=True)
class Plot:
    """One panel: PromQL by legend, the unit in Grafana's words, and how it is drawn."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: Literal["value", "lines", "areas", "cells"] = "lines"
    width: int = 8


def mean_of_a_step(phase: str) -> str:
    """The seconds of a step that go to ``phase``, mean over the ranks."""
    return f"avg(rate(partial_fc_{phase}_seconds_sum{CHOSEN}[$__rate_interval]) / {STEPS})"


def quantile(share: float) -> str:
    """The step that ``share`` of all steps are shorter than, in seconds."""
    by_length = f"sum by (le) (rate(partial_fc_step_seconds_bucket{CHOSEN}[$__rate_interval]))"
    return f"histogram_quantile({share}, {by_length})"


def share_of_steps(phase: str, over_ranks: str) -> str:
    """The share of the time of all steps that goes to ``phase``."""
    summed = (f"rate(partial_fc_{each}_seconds_sum{CHOSEN}[$__rate_interval])" for each in (phase, "step"))
    return f"{over_ranks}({' / '.join(summed)})"


IMAGES = f"sum(rate(partial_fc_images_total{CHOSEN}[$__rate_interval]))"
EVALUATIONS = 'max by (set, measure) (partial_fc_evaluation{run="$run", node=~"$node", measure=~"rank1|accuracy"})'
OUT_OF_REACH = (  # of the ranks that were this run's in the last hour
    '(1 - up{job="partial_fc", node=~"$node"}) and on (instance) last_over_time(partial_fc_step{run="$run"}[1h])'
)
ROWS: dict[str, tuple[Plot, ...]] = {
    "Now": (
        Plot("Images per second", {"all ranks": IMAGES}, kind="value", width=4),
        Plot(
            "Done",
            {"steps": f"max(partial_fc_step{CHOSEN}) / max(partial_fc_run_steps{CHOSEN})"},
            *("percentunit", "value", 4),
        ),
        Plot("Time left", {"at this pace": f"max(partial_fc_remaining_seconds{CHOSEN})"}, "s", "value", 4),
        Plot("Loss", {"loss": f"max(partial_fc_loss{CHOSEN})"}, kind="value", width=4),
        Plot("Goodput", {"training": f"max(partial_fc_goodput_ratio{CHOSEN})"}, "percentunit", "value", 4),
        Plot(
            "Since the last checkpoint",
            {"age": f"time() - max(partial_fc_last_checkpoint_timestamp_seconds{CHOSEN})"},
            *("s", "value", 4),
        ),
    ),
    "Throughput": (
        Plot(
            "Images per second",
            {"all ranks": IMAGES, "usual, median of an hour": 'run:partial_fc_images:rate5m_median1h{run="$run"}'},
        ),
        Plot(
            "A step by phase",
            {
                "wait for data": mean_of_a_step("data_wait"),
                **{phase: mean_of_a_step(phase) for phase in ("forward", "head", "backward", "update")},
            },
            *("s", "areas"),
        ),
        Plot("Steps, median and slowest", {"median": quantile(0.5), "99 of 100 are shorter": quantile(0.99)}, "s"),
        Plot(
            "Time that steps wait",
            {
                "for data, the rank that waits most": share_of_steps("data_wait", "max"),
                "for collectives, mean of the ranks": share_of_steps("collective", "avg"),
            },
            "percentunit",
        ),
        Plot(
            "Carried by collectives",
            {"all ranks": f"sum(rate(partial_fc_collective_bytes_total{CHOSEN}[$__rate_interval]))"},
            "binBps",
        ),
        Plot(
            "What the run's time was spent on",
            {"{{cause}}": f"max by (cause) (partial_fc_spent_seconds{CHOSEN})"},
            *("s", "areas"),
        ),
    ),
    "Learning": (
        Plot("Loss", {"loss": f"max(partial_fc_loss{CHOSEN})"}),
        Plot(
            "Median angle to the own class centre",
            {"angle": f"deg(max(partial_fc_median_target_angle_radians{CHOSEN}))"},
            "degree",
        ),
        Plot(
            "Scale",
            {
                "scale": f"max(partial_fc_scale{CHOSEN})",
                "share of steps at its cap (AdaCos)": f"max(partial_fc_scale_capped{CHOSEN})",
            },
        ),
        Plot("Near classes of an image", {"beyond chance": f"max(partial_fc_near_per_image{CHOSEN})"}, width=6),
        Plot(
            "Learning rates",
            {
                "backbone": f"max(partial_fc_learning_rate{CHOSEN})",
                "class rows": f"max(partial_fc_row_learning_rate{CHOSEN})",
            },
            width=6,
        ),
        Plot(
            "Norm of the backbone's gradient",
            {"before it is clipped": f"max(partial_fc_gradient_norm{CHOSEN})"},
            width=6,
        ),
        Plot("Held-out sets", {"{{set}} {{measure}}": EVALUATIONS}, width=6),
    ),
    "Memory, checkpoints, faults": (
        Plot("Peak memory", {"{{instance}}": f"partial_fc_peak_memory_bytes{CHOSEN}"}, "bytes"),
        Plot(
            "Checkpoints",
            {
                "mean time to write one": (
                    f"max(partial_fc_checkpoint_seconds_sum{CHOSEN} / partial_fc_checkpoint_seconds_count{CHOSEN})"
                ),
                "mean pause for one": (
                    f"max(partial_fc_checkpoint_pause_seconds_sum{CHOSEN} "
                    f"/ partial_fc_checkpoint_pause_seconds_count{CHOSEN})"
                ),
            },
            "s",
        ),
        Plot(
            "Faults",
            {
                "steps skipped": f"max(partial_fc_skipped_steps_total{CHOSEN})",
                "images replaced": f"sum(partial_fc_bad_images_total{CHOSEN})",
                "restarts": f"max(partial_fc_restarts{CHOSEN})",
            },
        ),
    ),
    "Ranks": (
        Plot("Own part of a step", {"{{instance}}": f"partial_fc_own_step_seconds{CHOSEN}"}, "s", "cells", 12),
        Plot(
            "Wait for data in a step",
            {"{{instance}}": f"rate(partial_fc_data_wait_seconds_sum{CHOSEN}[$__rate_interval]) / {STEPS}"},
            *("s", "cells", 12),
        ),
        Plot(
            "What the slowest rank needs more than the median",
            {"in each step": f"max(partial_fc_slowest_rank_lag_seconds{CHOSEN})"},
            *("s", "lines", 12),
        ),
        Plot("Out of reach", {"{{instance}}": OUT_OF_REACH}, kind="cells", width=12),
    ),
}
ALERTS = 'ALERTS{alertstate="firing", run="$run"}'


def tree() -> Any:
    """The dashboard as Grafana's JSON has it."""
    made = (
        dashboard.Dashboard("Partial FC")
        .uid("partial-fc")
        .tags(["partial-fc"])
        .editable()
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Source").type("prometheus"))
        .with_variable(_choice("run", "partial_fc_run_info"))
        .with_variable(_choice("node", 'partial_fc_run_info{run="$run"}').multi(True).include_all(True).all_value(".*"))
        .annotation(
            dashboard.AnnotationQuery().name("Alerts").datasource(SOURCE).enable(True).icon_color("red").expr(ALERTS)
        )
    )
    for title, plots in ROWS.items():
        made = made.with_row(dashboard.Row(title))
        for plot in plots:
            made = made.with_panel(_panel(plot))
    return json.loads(json.dumps(made.build(), cls=JSONEncoder))


def queries() -> Iterator[str]:
    """All PromQL of the dashboard."""
    for plots in ROWS.values():
        for plot in plots:
            yield from plot.queries.values()


def _choice(name: str, series: str) -> dashboard.QueryVariable:
    variable = dashboard.QueryVariable(name).label(name.capitalize()).datasource(SOURCE)
    variable = variable.query(f"label_values({series}, {name})").refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    return variable.sort(VariableSort.ALPHABETICAL_ASC)


def _panel(plot: Plot) -> Any:
    made: Any = _drawn(plot).title(plot.title).unit(plot.unit).datasource(SOURCE).span(plot.width)
    for number, (legend, query) in enumerate(plot.queries.items()):
        target = prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + number))
        made = made.with_target(target)
    return made


def _drawn(plot: Plot) -> Any:
    """An empty panel of its kind."""
    if plot.kind == "value":
        return stat.Panel().height(4).graph_mode(BigValueGraphMode.AREA)
    if plot.kind == "cells":
        colours = dashboard.FieldColor().mode(FieldColorModeId.CONTINUOUS_GR_YL_RD)
        return statushistory.Panel().height(8).color_scheme(colours).show_value(VisibilityMode.NEVER)
    lines = timeseries.Panel().height(8).draw_style(GraphDrawStyle.LINE).show_points(VisibilityMode.NEVER)
    if plot.kind == "areas":
        return lines.fill_opacity(40).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return lines


if __name__ == "__main__":
    FILE.write_text(json.dumps(tree(), indent=1) + "\n", encoding="utf-8")
