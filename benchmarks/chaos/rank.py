"""One rank of a training run that meets faults: ``launch.train``, told of by ``PARTIAL_FC_FAULTS`` what happens."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.chaos.faults import FILE_VARIABLE, FaultFile
from benchmarks.chaos.injector import Injector
from benchmarks.chaos.places import install
from launch import train
from launch.processes import end_with


def main() -> int:
    """Run the rank and return its exit code."""
    injector = Injector(FaultFile.read(Path(os.environ[FILE_VARIABLE])), int(os.environ.get("RANK", "0")))
    install(injector)
    try:
        return train.main()
    finally:
        injector.end()


if __name__ == "__main__":
    end_with(main)
