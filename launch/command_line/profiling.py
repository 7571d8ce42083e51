"""``partial-fc profile`` and its ranks."""

from __future__ import annotations

import argparse

from launch.command_line import training
from launch.config.section import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every way of starting a profile shares."""
    training.add_arguments(parser)
    parser.add_argument("--steps", type=_steps, default=10, metavar="N", help="steps that are recorded (10)")
    help_text = "a folder for trace-rank-R.json.gz and profile.txt; run_dir/profile unless given"
    parser.add_argument("--out", type=user_path, metavar="DIR", help=help_text)


def _steps(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of steps, at least 1")
    return int(text)
