"""``partial-fc search``."""

from __future__ import annotations

import argparse

from launch.command_line.columns import add_column_arguments
from launch.config.section import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to search, for which images, by which network, and how the answer is shown."""
    help_text = "what partial-fc embed wrote: .parquet, or .npy with its companions"
    parser.add_argument("embeddings", type=user_path, metavar="EMBEDDINGS", help=help_text)
    parser.add_argument("images", type=user_path, nargs="+", metavar="IMAGE", help="pictures to look for")
    help_text = "the network that made the embeddings: a run, a checkpoint, or any file that partial_fc.load takes"
    parser.add_argument("--model", type=user_path, required=True, metavar="MODEL", help=help_text)
    parser.add_argument("--nearest", type=int, default=10, metavar="N", help="identities for each image (10)")
    parser.add_argument("--sheet", type=user_path, metavar="FILE", help="their pictures: a page, .html, or a .png")
    parser.add_argument("--set", type=user_path, metavar="IMAGES", help="where the set lies now, for --sheet")
    help_text = "compare by FAISS, which changes no digit (where it is installed)"
    parser.add_argument("--faiss", action=argparse.BooleanOptionalAction, help=help_text)
    add_column_arguments(parser)
