"""``partial-fc inspect``."""

from __future__ import annotations

import argparse

from launch.command_line.columns import add_column_arguments
from launch.config.section import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The set, how many images to look at, and where page and picture go."""
    parser.add_argument("data", type=user_path, metavar="PATH", help="a set of images, as training takes it")
    parser.add_argument(
        "--out", type=user_path, metavar="FOLDER", help="write inspection.html and contact_sheet.png there"
    )
    parser.add_argument("--images", type=int, default=4000, metavar="N", help="images to look at, drawn by rule (4000)")
    add_column_arguments(parser)
    parser.add_argument("--seed", type=int, default=0, help="which images and identities are drawn")
