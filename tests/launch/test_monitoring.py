"""The rules and alerts: their own unit tests, their names beside those of a real endpoint, and one alert that fires."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families

from partial_fc.reports.prometheus import PrometheusSink
from partial_fc.reports.step_report import StepReport

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "launch" / "monitoring"
PAGE = ROOT / "docs" / "monitoring.md"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule["alert"] for rule in RULES if "alert" in rule]
NEEDED = "is not installed; Debian has it in the package prometheus"


@pytest.fixture
def sink() -> Iterator[PrometheusSink]:
    """An endpoint that shows all that there is: after a report with the figures of every objective and a checkpoint."""
    opened = PrometheusSink(run="r1", version="0.1.0", objective="adacos", num_classes=12, world_size=1, port=0)
    opened.write(report(timestamp_seconds=time.time()))
    opened.saved(timestamp_seconds=time.time(), writing_seconds=12.0, pause_seconds=0.5)
    opened.evaluated({"lfw.accuracy": 0.99})
    yield opened
    opened.close()


def report(*, timestamp_seconds: float) -> StepReport:
    return StepReport(
        step=20,
        total_steps=4000,
        epoch=0.5,
        images=2560,
        interval_steps=20,
        interval_images=2560,
        images_per_second=640.0,
        step_seconds=0.2,
        data_wait_seconds=0.003,
        loss=8.5,
        scale=20.5,
        median_target_angle_radians=1.25,
        learning_rate=0.1,
        row_learning_rate=0.05,
        seconds_left=800.0,
        timestamp_seconds=timestamp_seconds,
        gradient_norm=1.5,
        seconds_spent={"training": 90.0},
        goodput_ratio=0.9,
        peak_memory_bytes=1 << 30,
        extra={"scale_capped": 0.0, "near_per_image": 3.5},  # the objectives' tests hold these names
    )


def shown(sink: PrometheusSink) -> dict[str, set[str]]:
    """Each family of this project at the endpoint, and the names of its samples."""
    with urlopen(f"http://127.0.0.1:{sink.port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    names = {family.name: {sample.name for sample in family.samples} for family in families}
    return {name: samples for name, samples in names.items() if name.startswith("partial_fc_")}


def names_in(expression: str) -> set[str]:
    """What an expression reads of this project: metrics, and series that a rule records (with colons)."""
    return {name for name in re.findall(r"[a-z][a-zA-Z0-9_:]*", expression) if "partial_fc_" in name}


def test_rules_read_nothing_but_what_an_endpoint_shows_or_a_rule_records(sink: PrometheusSink) -> None:
    known = set().union(*shown(sink).values()) | {rule["record"] for rule in RULES if "record" in rule}
    read = {name: names_in(rule["expr"]) for rule in RULES for name in [rule.get("alert") or rule["record"]]}
    assert all(read.values()), "every rule reads a figure of ours"
    assert {name: unknown for name, names in read.items() if (unknown := names - known)} == {}
    texts = " ".join(text for rule in RULES for text in rule.get("annotations", {}).values())
    assert names_in(texts) <= set(shown(sink))


def test_a_name_that_no_endpoint_shows_is_found() -> None:
    expression = "max by (run) (partial_fc_lost_total) / run:partial_fc_images:rate5m > on (run) up"
    assert names_in(expression) == {"partial_fc_lost_total", "run:partial_fc_images:rate5m"}


def test_every_alert_is_tested_where_it_fires_and_where_it_does_not() -> None:
    tests = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    cases = [(case["alertname"], bool(case["exp_alerts"])) for test in tests for case in test["alert_rule_test"]]
    assert set(cases) == {(alert, fires) for alert in ALERTS for fires in (True, False)}
    healthy = tests[0]["alert_rule_test"]
    assert [case["alertname"] for case in healthy][: len(ALERTS)] == ALERTS
    assert all(case["exp_alerts"] == [] for case in healthy)


def test_every_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    for rule in RULES:
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("page", "warning"), rule["alert"]
            assert rule["annotations"].keys() == {"summary", "description"}, rule["alert"]


def test_the_page_lists_every_metric_every_rule_and_every_alert(sink: PrometheusSink) -> None:
    told = {
        name for row in re.findall(r"^\| (`.*?) \|", PAGE.read_text(), re.MULTILINE) for name in row.split("`")[1::2]
    }
    families = {  # with the ending that a query has to give
        f"{name}_total" if f"{name}_total" in samples else name for name, samples in shown(sink).items()
    }
    assert told == families | {rule.get("alert") or rule["record"] for rule in RULES}


@pytest.mark.parametrize(
    "words",
    [("check", "config", "prometheus.yml"), ("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")],
)
@pytest.mark.skipif(shutil.which("promtool") is None, reason=f"promtool {NEEDED}")
def test_promtool_finds_nothing_wrong(words: tuple[str, ...]) -> None:
    ended = subprocess.run(["promtool", *words], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "SUCCESS" in ended.stdout


@pytest.mark.skipif(shutil.which("promtool") is None, reason=f"promtool {NEEDED}")
def test_the_unit_tests_find_each_alert_that_never_fires(tmp_path: Path) -> None:
    tree = yaml.safe_load((FOLDER / "rules.yml").read_text())
    for rule in tree["groups"][1]["rules"]:
        rule["expr"] = "vector(1) < 0"
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(tree))
    shutil.copy(FOLDER / "rules_test.yml", tmp_path)
    words = ["promtool", "test", "rules", "rules_test.yml"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert set(re.findall(r"alertname: (\w+)", ended.stdout + ended.stderr)) == set(ALERTS)


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("prometheus") is None, reason=f"prometheus {NEEDED}")
def test_a_run_that_stands_still_makes_a_real_prometheus_fire(sink: PrometheusSink, tmp_path: Path) -> None:
    """The rules as they are, evaluated each second and without their time of grace."""
    rules = re.sub(r"for: \w+", "for: 0s", (FOLDER / "rules.yml").read_text())
    (tmp_path / "rules.yml").write_text(rules)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {"job_name": "partial_fc", "static_configs": [{"targets": [f"127.0.0.1:{sink.port}"]}]},
        ],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    words = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]
    with subprocess.Popen([*words, f"--web.listen-address=127.0.0.1:{port}"], cwd=tmp_path) as process:
        try:
            answered(port, "count_over_time(run:partial_fc_images:rate5m[1m]) >= 2")  # the alerts were looked at, too
            assert firing(port) == set()
            sink.write(report(timestamp_seconds=time.time() - 400))
            labels = answered(port, 'ALERTS{alertstate="firing"}')
            assert firing(port) == {"PartialFcStalled"}
            assert (labels["run"], labels["severity"]) == ("r1", "page")
        finally:
            process.terminate()


def firing(port: int) -> set[str]:
    return {labels["alertname"] for labels in asked(port, 'ALERTS{alertstate="firing"}')}


def answered(port: int, query: str) -> dict[str, str]:
    """The labels of a query's first answer, when there is one."""
    patience_ends = time.monotonic() + 20
    while time.monotonic() < patience_ends:
        if found := asked(port, query):
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"no answer to {query} within 20 s")


def asked(port: int, query: str) -> list[dict[str, str]]:
    try:
        with urlopen(f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': query})}", timeout=5) as answer:
            return [each["metric"] for each in json.load(answer)["data"]["result"]]
    except OSError:  # it is not there yet, or not ready
        return []
