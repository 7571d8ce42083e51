"""The agent of a run that meets faults: ``python -m benchmarks.chaos.agent NPROC MAX_RESTARTS CONFIG``."""

from __future__ import annotations

import sys

from benchmarks.chaos.actions import RANK_MODULE
from launch.processes import run_ranks

if __name__ == "__main__":
    sys.exit(run_ranks(RANK_MODULE, sys.argv[3:], int(sys.argv[1]), int(sys.argv[2])))
