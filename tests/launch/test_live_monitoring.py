"""A real run of two ranks under a real Prometheus and Alertmanager, and the dashboard's queries on it.

Needs the two programs; ``make cluster-test`` installs them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import tiny
import yaml
from ports import free_port
from test_monitoring import FOLDER, NEEDED
from test_resume import ranks_of

from launch.monitoring import dashboard

PROGRAMS = ("prometheus", "prometheus-alertmanager")
PATIENCE_SECONDS = 120.0
STALLED, DOWN = "PartialFcStalled", "PartialFcTargetDown"

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason=f"{' or '.join(PROGRAMS)} {NEEDED}"),
]


@dataclass
class Watched:
    """A run that trains, what Prometheus answers about it, and what Alertmanager has told of it, oldest first."""

    run: subprocess.Popen[str]
    folder: Path
    port: int
    told: list[tuple[str, str]]

    def asked(self, path: str, **words: object) -> Any:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(words)}", timeout=10) as answer:
                return json.load(answer)["data"]["result"]
        except OSError:  # it is not there yet
            return []

    def series(self, query: str) -> list[dict[str, str]]:
        """The labels of each series that ``query`` gave in the last minutes."""
        now = time.time()
        query = query.replace("$__rate_interval", "5s").replace("$run", "watched").replace("$node", ".*")
        found = self.asked("query_range", query=query, start=now - 600, end=now, step=1)
        return [each["metric"] for each in found if any(value != "NaN" for _, value in each["values"])]

    def until(self, what: str, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert self.run.poll() is None, "the run has ended"
            assert time.monotonic() < end, f"not within {PATIENCE_SECONDS:.0f} s: {what}; told: {self.told}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("live")
    (folder / "targets").mkdir()
    told = list[tuple[str, str]]()
    with ExitStack() as stack:
        webhook = stack.enter_context(_webhook(told))
        alertmanager = _started_alertmanager(folder, webhook, stack)
        port = _started_prometheus(folder, alertmanager, stack)
        run = stack.enter_context(_ended(_started_run(folder)))
        yield Watched(run, folder, port, told)


def test_every_query_of_the_dashboard_gives_series(watched: Watched) -> None:
    watched.until("the second stage is scraped", lambda: watched.series('partial_fc_scale{run="watched"}'))
    watched.until("a checkpoint is scraped", lambda: watched.series("partial_fc_checkpoint_seconds_count > 0"))
    waiting = dict.fromkeys(dashboard.queries())
    watched.until("all queries give series", lambda: not [query for query in waiting if not watched.series(query)])
    ranks = watched.series("partial_fc_own_step_seconds")
    assert sorted(each["rank"] for each in ranks) == ["0", "1"]
    assert {each["node"] for each in ranks} == {os.uname().nodename}


def test_a_rank_that_stops_fires_alerts_which_end_when_it_goes_on(watched: Watched) -> None:
    watched.until("steps are scraped", lambda: watched.series("run:partial_fc_step_seconds:mean5m"))
    assert not [name for name, _ in watched.told if name in (STALLED, DOWN)]
    rank = ranks_of(watched.run)[-1]
    os.kill(rank, signal.SIGSTOP)
    try:
        for name in (STALLED, DOWN):
            watched.until(f"{name} is told of", lambda: (name, "firing") in watched.told)  # noqa: B023
        assert watched.series(dashboard.ALERTS)
    finally:
        os.kill(rank, signal.SIGCONT)
    for name in (STALLED, DOWN):
        watched.until(f"{name} is over", lambda: (name, "resolved") in watched.told)  # noqa: B023


def test_a_run_that_is_told_to_end_takes_itself_off_the_list(watched: Watched) -> None:
    listed = watched.folder / "targets" / "watched.json"
    watched.until("the run is listed", listed.exists)
    watched.run.send_signal(signal.SIGTERM)
    assert watched.run.wait(PATIENCE_SECONDS) == 143
    assert not listed.exists()


def _started_run(folder: Path) -> subprocess.Popen[str]:
    """Two ranks that train for longer than any test; beyond chance first, then AdaCos: the figures of both."""
    stages = [{"epochs": 40}, {"objective": {"name": "adacos"}}]
    content = tiny.tree(
        *(tiny.write_data(folder / "data"), folder / "watched"),
        objective={"name": "p2sgrad", "negatives": "beyond_chance"},
        schedule={"epochs": 500_000, "stages": stages},
        report={"every_steps": 10, "prometheus": True, "port": 0, "targets": str(folder / "targets")},
        save_every_steps=200,
        evaluation={"every_steps": 150},
    )
    config = tiny.write_config(folder / "config.yaml", content)
    words = tiny.command("train", config, "--nproc", 2)
    with (folder / "run.log").open("w") as log:
        return subprocess.Popen(words, env=tiny.environment(), stdout=log, stderr=log, text=True)


def _started_prometheus(folder: Path, alertmanager: int, stack: ExitStack) -> int:
    """With the shipped rules, of which the times are seconds in place of minutes."""
    rules = (FOLDER / "rules.yml").read_text().replace("> 300\n", "> 6\n", 1)
    (folder / "rules.yml").write_text(re.sub(r"for: \w+", "for: 1s", rules))
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]},
        "scrape_configs": [
            {
                "job_name": "partial_fc",
                "file_sd_configs": [{"files": ["targets/*.json"], "refresh_interval": "1s"}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    words = ["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", f"--web.listen-address=127.0.0.1:{port}"]
    stack.enter_context(_ended(subprocess.Popen(["prometheus", *words, "--log.level=error"], cwd=folder, text=True)))
    return port


def _started_alertmanager(folder: Path, webhook: int, stack: ExitStack) -> int:
    config = {
        "route": {"receiver": "here", "group_by": ["alertname"], "group_wait": "1s", "group_interval": "1s"},
        "receivers": [{"name": "here", "webhook_configs": [{"url": f"http://127.0.0.1:{webhook}/"}]}],
    }
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    words = ["--config.file=alertmanager.yml", "--storage.path=am", "--cluster.listen-address="]
    command = ["prometheus-alertmanager", *words, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    stack.enter_context(_ended(subprocess.Popen(command, cwd=folder, text=True)))
    return port


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """The process, ended with the block."""
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def _webhook(told: list[tuple[str, str]]) -> Iterator[int]:
    """The port of a server that notes each alert it is told of: its name, and firing or resolved."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.extend((alert["labels"]["alertname"], alert["status"]) for alert in body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()
