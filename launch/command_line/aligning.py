"""``partial-fc align``."""

from __future__ import annotations

import argparse

from launch.config.section import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The pictures, their landmarks, and where and how the faces are written."""
    parser.description = "Ended or killed, the same command goes on: a face that is there already is left as it is."
    parser.add_argument("source", type=user_path, metavar="SRC", help="the folder of pictures")
    parser.add_argument(
        "landmarks",
        type=user_path,
        metavar="LANDMARKS",
        help="a line for each face: its picture in SRC, x and y of eyes, nose and mouth's corners, a score or none",
    )
    parser.add_argument(
        "--out", type=user_path, required=True, metavar="DIR", help="where the faces go, under their pictures' names"
    )
    parser.add_argument("--size", type=int, default=112, help="side in pixels (112); the template is scaled to it")
    parser.add_argument("--quality", type=int, metavar="Q", help="write JPEG of this quality, not PNG")
    parser.add_argument("--workers", type=int, metavar="N", help="threads (one per core)")
