"""Nodes come and go: a run loses one and goes on with fewer ranks, then gains one. Two real agents on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
from ports import free_port

from launch.resilience.agent import OWN_STORE
from partial_fc.checkpoint.layout import latest_checkpoint

PATIENCE_SECONDS = 300.0
BETWEEN_AGENTS = "last_call_timeout=1,join_timeout=300,keep_alive_interval=1,keep_alive_max_attempt=3"
GOES_ON = re.compile(r"on (\d) x cpu(?:, going on after step ([\d,]+))?")
pytestmark = pytest.mark.processes


class Node:
    """An agent with one rank, and what both say."""

    def __init__(self, name: str, config: Path, port: int, *, hosts: bool) -> None:
        self.file = config.with_name(f"{name}.txt")
        words = [
            *("--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=elastic"),
            *(f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1"),
            f"--rdzv-conf=is_host={int(hosts)},{BETWEEN_AGENTS}",
        ]
        with self.file.open("wb") as said:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *words, "--module", "launch.train", str(config)],
                env={**tiny.environment(), OWN_STORE: "1"},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def rank(self) -> int:
        """The process that trains."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == self.agent.pid:
                return int(entry.name)
        raise AssertionError(self.file.read_text())

    def is_lost(self) -> None:
        """Agent and rank end at once."""
        rank = self.rank()
        self.agent.kill()
        os.kill(rank, signal.SIGKILL)
        self.agent.wait()


@contextmanager
def nodes() -> Iterator[list[Node]]:
    """Those added to the list are ended."""
    started: list[Node] = []
    try:
        yield started
    finally:
        for node in started:
            node.agent.terminate()  # a rank whose agent is gone ends by itself
        for node in started:
            node.agent.wait(PATIENCE_SECONDS)


def starts(of: list[Node]) -> list[tuple[int, int]]:
    """With how many ranks, and after which step, the run was started, as its first ranks say it, in that order."""
    said = [GOES_ON.findall(node.file.read_text()) for node in of]
    found = [(int(ranks), int((step or "0").replace(",", ""))) for each in said for ranks, step in each]
    return sorted(found, key=lambda start: start[1])


def until_started(of: list[Node], number: int, checkpoints: Path) -> None:
    """Until the run was started so many times, and has saved a step since."""
    end = time.monotonic() + PATIENCE_SECONDS
    while len(starts(of)) < number or not saved_after(checkpoints, starts(of)[-1][1]):
        assert time.monotonic() < end, [node.file.read_text() for node in of]
        time.sleep(0.1)


def saved_after(checkpoints: Path, step: int) -> bool:
    try:
        return int(latest_checkpoint(checkpoints).name.removeprefix("step-")) > step
    except FileNotFoundError:
        return False


def test_a_run_loses_a_node_and_gains_one(tmp_path: Path) -> None:
    tree = tiny.tree(
        tiny.write_data(tmp_path / "data"),
        tmp_path / "run",
        data={"evaluate": None},
        backbone={"width": 8},
        schedule={"epochs": 10_000},
        save_every_steps=5,
    )
    config, checkpoints = tiny.write_config(tmp_path / "config.yaml", tree), tmp_path / "run" / "checkpoints"
    port = free_port()
    with nodes() as started:
        started += [Node("first", config, port, hosts=True), Node("second", config, port, hosts=False)]
        until_started(started, 1, checkpoints)
        started[1].is_lost()
        until_started(started, 2, checkpoints)
        started.append(Node("third", config, port, hosts=False))
        until_started(started, 3, checkpoints)
        with_two, with_one, with_two_again = starts(started)
    assert [with_two[0], with_one[0], with_two_again[0]] == [2, 1, 2]
    assert 0 == with_two[1] < with_one[1] < with_two_again[1]
