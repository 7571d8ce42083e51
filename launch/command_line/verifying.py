"""``partial-fc verify``."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_pipeline.images.checks import LARGEST_PIXELS
from launch.command_line.columns import add_column_arguments
from launch.config.section import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The set, how closely to look, and where the list goes."""
    parser.add_argument(
        "data", type=user_path, nargs="+", metavar="DATA", help="a set as training takes it, or its parts"
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="read all, decode nothing: finds what is cut short, foreign, a bomb, or fails its checksum",
    )
    add_column_arguments(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode; threads with --fast")
    parser.add_argument(
        "--out", type=user_path, default=Path("quarantine.tsv"), metavar="FILE", help="the list (./quarantine.tsv)"
    )
    parser.add_argument(
        "--largest-pixels",
        type=int,
        default=LARGEST_PIXELS,
        metavar="N",
        help=f"width x height above which an image counts as a bomb ({LARGEST_PIXELS:,})",
    )
