"""Grafana's dashboard beside its builder, and its queries beside the metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from test_monitoring import RULES, names_in, report, shown

from launch.monitoring import dashboard
from partial_fc.reports.prometheus import PrometheusSink

KEPT: dict[str, Any] = json.loads(dashboard.FILE.read_text())
PANELS = [panel for panel in KEPT["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def known() -> Iterator[set[str]]:
    """What a rank shows and what the rules record."""
    sink = PrometheusSink(run="r1", version="0.1.0", objective="adacos", num_classes=12, world_size=1, port=0)
    sink.write(report(timestamp_seconds=1.75e9))
    sink.saved(timestamp_seconds=1.75e9, writing_seconds=12.0, pause_seconds=0.5)
    sink.evaluated({"lfw.accuracy": 0.99})
    yield {name for samples in shown(sink).values() for name in samples} | {
        rule["record"] for rule in RULES if "record" in rule
    }
    sink.close()


def test_the_file_is_what_the_builder_makes() -> None:
    assert dashboard.tree() == KEPT, "python -m launch.monitoring.dashboard writes it anew"


def test_every_query_reads_what_a_rank_or_a_rule_gives(known: set[str]) -> None:
    for query in dashboard.queries():
        assert names_in(query), query
        assert names_in(query) <= known, query


def test_every_panel_has_a_title_a_unit_a_source_and_a_place_of_its_own() -> None:
    places: set[tuple[int, int]] = set()
    for panel in KEPT["panels"]:
        place = panel["gridPos"]
        cells = {(place.get("x", 0) + x, place.get("y", 0) + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not places & cells, panel["title"]
        assert max(x for x, _ in cells) < dashboard.GRID_WIDTH
        places |= cells
    for panel in PANELS:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}", "no source of somebody's own Grafana"
        assert [target["refId"] for target in panel["targets"]] == [*"ABCDEFG"][: len(panel["targets"])]


def test_a_run_and_its_nodes_can_be_chosen() -> None:
    variables = {each["name"]: each for each in KEPT["templating"]["list"]}
    assert list(variables) == ["datasource", "run", "node"]
    assert variables["node"]["allValue"] == ".*", "a target without the label is chosen, too"
    asked = set(re.findall(r"\$(\w+)", " ".join([*dashboard.queries(), dashboard.ALERTS])))
    assert asked == {"run", "node", "__rate_interval"}
