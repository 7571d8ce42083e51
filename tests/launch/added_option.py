"""The command ``partial-fc train`` with one option more: ``--added FOLDER`` leaves a file of each rank that has it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from launch import cli, processes, train
from launch.command_line import training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    known_arguments(parser)
    parser.add_argument("--added", type=leave_file)


def leave_file(folder: str) -> Path:
    file = Path(folder, f"rank-{os.environ['RANK']}" if "RANK" in os.environ else "launcher")
    file.touch()
    return file


if __name__ == "__main__":
    known_arguments, training.add_arguments = training.add_arguments, add_arguments
    train.run = lambda config: None
    vars(cli)["run_ranks"] = lambda module, *rest: processes.run_ranks("added_option", *rest)
    sys.exit(train.main() if "RANK" in os.environ else cli.main())
