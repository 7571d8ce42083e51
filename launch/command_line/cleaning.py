"""``partial-fc clean``."""

from __future__ import annotations

import argparse
from pathlib import Path

from launch.command_line.columns import add_column_arguments
from launch.config.section import user_path

MARGIN, SAME_IMAGE = 0.3, 0.95


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The set, the network that judges, what it is compared with, and where the lists go."""
    parser.add_argument("data", type=user_path, metavar="DATA", help="a set of images, as training takes it")
    help_text = "the network that judges: a run that was trained on DATA, a checkpoint, or a file of weights"
    parser.add_argument("--model", type=user_path, required=True, metavar="RUN", help=help_text)
    help_text = "sets to measure on, whose pictures must not be in DATA; unless given, the run's data.evaluate"
    parser.add_argument("--test", type=user_path, nargs="*", metavar="SET", help=help_text)
    help_text = "the lists, a page with pictures, and the embeddings (./clean)"
    parser.add_argument("--out", type=user_path, default=Path("clean"), metavar="FOLDER", help=help_text)
    help_text = f"how much nearer to another identity than to its own a wrongly labelled image is ({MARGIN})"
    parser.add_argument("--margin", type=float, default=MARGIN, metavar="COSINE", help=help_text)
    help_text = "of the centres of two identities that are one; unless given, what halves of one identity have"
    parser.add_argument("--near", type=float, metavar="COSINE", help=help_text)
    help_text = f"from which on the pixels of an image and a test image are compared ({SAME_IMAGE})"
    parser.add_argument("--same-image", type=float, default=SAME_IMAGE, metavar="COSINE", help=help_text)
    parser.add_argument("--input-size", type=int, metavar="PIXELS", help="for weights that do not say it")
    add_column_arguments(parser)
