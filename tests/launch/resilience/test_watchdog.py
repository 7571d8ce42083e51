"""A process that hangs is ended, in every part of a run, and says where it hung. Real processes, which are the test."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny

from launch.config.run import WatchdogConfig
from launch.resilience.watchdog import Watchdog

PHASES = ("start", "step", "save", "evaluation")
NAMES = ("the start", "step 1,234", "the save of step 1,234", "the evaluation")
FAR, NEAR = 1e6, 0.75
PROGRAM = """
import ctypes, json, os, sys, time
from pathlib import Path
from launch.config.run import WatchdogConfig
from launch.resilience.watchdog import Watchdog

PHASES = ("start", "step", "save", "evaluation")

def hang_here():
    time.sleep(1000)

def keep_the_interpreters_lock():
    ctypes.PyDLL(None).sleep(1000)

def take_long():
    time.sleep(1.5)

def run(stacks, phase, what, limits):
    limits = WatchdogConfig(**{f"{each}_seconds": limit for each, limit in zip(PHASES, limits)})
    with Watchdog(limits, Path(stacks), 3).watching() as watchdog:
        for each in PHASES:
            if each != "start":
                watchdog.begin(each, 1234)
            if each == phase:
                globals()[what]()

children = []
for said, *case in json.loads(sys.argv[1]):
    children.append(os.fork())
    if not children[-1]:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
        run(*case)
        os._exit(0)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""
pytestmark = pytest.mark.processes


class Case(NamedTuple):
    """A process that does ``what`` in ``phase``; ``limits`` are in the order of PHASES."""

    said: Path
    stacks: Path
    phase: str
    what: str
    limits: list[float]


def exit_codes(cases: list[Case]) -> list[int]:
    """Of all the processes, which run side by side."""
    words = [sys.executable, "-c", PROGRAM, json.dumps(cases, default=str)]
    done = subprocess.run(words, env=tiny.environment(), capture_output=True, text=True, timeout=60, check=False)
    codes: list[int] = json.loads(done.stdout)
    return codes


def test_every_part_of_a_run_has_a_limit_of_its_own(tmp_path: Path) -> None:
    """One that hangs is ended by its own limit, the others' being far; one that lasts is not, by the others' near."""
    hung = [
        Case(
            *(tmp_path / f"hung-{phase}", tmp_path / "stacks" / phase, phase, "hang_here"),
            limits=[NEAR if each == phase else FAR for each in PHASES],
        )
        for phase in PHASES
    ]
    long = [
        Case(
            *(tmp_path / f"long-{phase}", tmp_path / "none", phase, "take_long"),
            limits=[FAR if each == phase else NEAR for each in PHASES],
        )
        for phase in PHASES
    ]
    assert exit_codes([*hung, *long]) == [1] * 4 + [0] * 4, [case.said.read_text() for case in (*hung, *long)]
    for case, name in zip(hung, NAMES, strict=True):
        said, stacks = case.said.read_text(), case.stacks.read_text()
        assert said == (
            f"partial-fc: rank 3: {name} takes longer than 0.75 s (watchdog.{case.phase}_seconds), and ends here; the "
            f"stacks of its threads: {case.stacks}\n"
        )
        assert said in stacks
        assert "in hang_here" in stacks
    assert not (tmp_path / "none").exists()


def test_neither_the_interpreters_lock_nor_a_file_system_keeps_a_process_alive(tmp_path: Path) -> None:
    limits = [FAR, NEAR, FAR, FAR]
    locked = Case(tmp_path / "locked", tmp_path / "stacks", "step", "keep_the_interpreters_lock", limits)
    unwritten = Case(tmp_path / "unwritten", tmp_path / "locked" / "stacks", "step", "hang_here", limits)
    assert exit_codes([locked, unwritten]) == [1, 1]
    assert "Timeout" in locked.said.read_text()
    assert "in keep_the_interpreters_lock" in locked.said.read_text()
    assert "step 1,234 takes longer than 0.75 s" in unwritten.said.read_text()


def test_a_rank_waits_for_another_longer_than_any_limit_lets_it() -> None:
    watchdog = Watchdog(
        WatchdogConfig(start_seconds=5, step_seconds=7, save_seconds=3, evaluation_seconds=2), Path(), 0
    )
    assert watchdog.collective_seconds == 67
    assert Watchdog(WatchdogConfig(step_seconds=None), Path(), 0).collective_seconds > 1e7


def test_a_watched_step_costs_less_than_a_hundredth_of_five_milliseconds(tmp_path: Path) -> None:
    steps = 2000
    with Watchdog(WatchdogConfig(), tmp_path / "3.txt", 0).watching() as watchdog:
        ask = watchdog.stops(lambda done: False)
        ask(0)
        fastest = min(_seconds(ask, steps) for _ in range(5)) / steps
    assert fastest < 5e-5


def _seconds(ask: object, steps: int) -> float:
    assert callable(ask)
    begin = time.perf_counter()
    for step in range(steps):
        ask(step)
    return time.perf_counter() - begin
