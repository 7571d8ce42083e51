"""Jobs in their order, and workers that do not outlive who they work for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from data_pipeline.workers import in_order, process_pool

PARENT = """
import os, sys, time
from data_pipeline.workers import process_pool

if __name__ == "__main__":
    with process_pool(2) as pool:
        busy = [pool.submit(time.sleep, 0.2) for _ in range(2)]
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(120)
"""


def test_no_more_jobs_are_begun_than_asked_for() -> None:
    begun: list[int] = []

    def submit(job: int) -> Future[int]:
        begun.append(job)
        return pool.submit(pow, job, 2)

    with ThreadPoolExecutor(1) as pool:
        for at, (job, future) in enumerate(in_order(range(10), submit, 3)):
            assert (job, future.result()) == (at, at * at)
            assert len(begun) == min(at + 4, 10)


@pytest.mark.processes
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_begins_with_what_it_was_told(workers: int) -> None:
    usual = sys.getswitchinterval()
    try:
        with process_pool(workers, partial(sys.setswitchinterval, 0.25)) as pool:
            assert pool.submit(sys.getswitchinterval).result() == 0.25
    finally:
        sys.setswitchinterval(usual)


@pytest.mark.processes
def test_workers_end_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        for _ in range(600):
            if not alive(worker):
                return
            time.sleep(0.1)
    raise AssertionError(f"worker {worker} is alive a minute later")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # one that nobody has asked for is a zombie
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
