"""Ranks of one machine meet without its name; freed memory stays in the process."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from launch import processes

ENDING = """
import atexit, sys
from launch.processes import end_with
atexit.register(print, "taken apart")
def main():
    print("said", end="")
    return 3 if sys.argv[1] == "returns" else sys.exit({"leaves": 4, "done": None}[sys.argv[1]])
end_with(main)
"""

STEPS = """
import resource, sys, torch
from launch.processes import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("this is not glibc")
def step():
    kept = [torch.ones(1 << 20) for _ in range(24)]
    return len(kept)
step(); step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's switch")
def test_blocks_of_some_mebibytes_are_not_mapped_anew_at_each_step() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, check=True, text=True).stdout)
        for how in ("keep", "give back")
    }
    assert faults["keep"] < 0.1 * faults["give back"]


@pytest.mark.parametrize(("how", "exit_code"), [("returns", 3), ("leaves", 4), ("done", 0)])
def test_a_rank_ends_with_its_code_and_all_that_it_said_and_nothing_is_taken_apart(how: str, exit_code: int) -> None:
    ended = subprocess.run([sys.executable, "-c", ENDING, how], capture_output=True, check=False, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (exit_code, "said", "")


def test_ranks_of_one_machine_meet_by_address_whatever_its_name_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[argparse.Namespace] = []
    monkeypatch.setattr("torch.distributed.run.run", asked.append)
    monkeypatch.setattr("logging.disable", lambda level: None)  # it would last for the tests that follow
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PET_NNODES", "2")  # Kubeflow's, and torchrun's default then
    for _ in range(2):
        assert processes.run_ranks("launch.train", ["c.yaml", "--set", "seed=1"], 2) == 0
    for arguments in asked:
        assert (arguments.nnodes, arguments.local_addr) == ("1", "127.0.0.1")
        assert arguments.rdzv_endpoint == "127.0.0.1:0", "any free port"
        assert (arguments.rdzv_backend, arguments.nproc_per_node) == ("c10d", "2")
        assert arguments.shutdown_timeout == processes.LEAVING_SECONDS, "torchrun's own would cut a long save short"
        assert [arguments.training_script, *arguments.training_script_args][1:] == ["c.yaml", "--set", "seed=1"]
    assert asked[0].rdzv_id != asked[1].rdzv_id
