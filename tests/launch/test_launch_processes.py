"""Freed memory stays in the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
