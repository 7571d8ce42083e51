"""``partial-fc embed`` and its ranks."""

from __future__ import annotations

import argparse

from launch.command_line.columns import add_column_arguments
from launch.config.section import user_path

IMAGES_PER_PART = 8192


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, the images, the file, and how images are read."""
    help_text = "a run's folder, of which the last checkpoint is taken; a checkpoint's; or a file of weights"
    parser.add_argument("model", type=user_path, metavar="MODEL", help=help_text)
    parser.add_argument("images", type=user_path, metavar="IMAGES", help="a set of images, as training takes it")
    help_text = "the embeddings: .parquet, or .npy with names and labels beside it"
    parser.add_argument("out", type=user_path, metavar="OUT", help=help_text)
    parser.add_argument("--flip", action="store_true", help="add the mirrored image's embedding, as is usual for faces")
    parser.add_argument("--input-size", type=int, metavar="PIXELS", help="for weights that do not say it")
    help_text = f"written at a time: what is lost when the command is killed ({IMAGES_PER_PART})"
    parser.add_argument("--images-per-part", type=int, default=IMAGES_PER_PART, metavar="N", help=help_text)
    add_column_arguments(parser)
