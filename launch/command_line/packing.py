"""``partial-fc pack``, and what each kind of source takes."""

from __future__ import annotations

import argparse

from launch.command_line.columns import add_column_arguments
from launch.config.section import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand per kind of source."""
    kinds = parser.add_subparsers(required=True, metavar="KIND")

    folder = kinds.add_parser("folder", help="one folder of images per identity")
    folder.add_argument("source", type=user_path, metavar="SRC")
    folder.add_argument("--size", type=int, help="crop and resize to this side; without it JPEGs keep their bytes")
    folder.set_defaults(kind="folder")

    omniglot = kinds.add_parser("omniglot", help="Omniglot's zips")
    omniglot.add_argument("zips", type=user_path, nargs="+", metavar="ZIP")
    omniglot.add_argument("--size", type=int, default=32, help="side in pixels (default 32)")
    omniglot.add_argument("--no-rotations", action="store_true", help="do not count turned characters as others")
    omniglot.set_defaults(kind="omniglot")

    synthetic = kinds.add_parser("synthetic", help="faces drawn by arithmetic")
    synthetic.add_argument("--identities", type=int, required=True)
    synthetic.add_argument("--images", type=int, required=True, help="of each identity")
    synthetic.add_argument("--size", type=int, default=64, help="side in pixels (default 64)")
    synthetic.add_argument("--first-identity", type=int, default=0, help="number of the first person")
    synthetic.add_argument("--seed", type=int, default=0)
    synthetic.set_defaults(kind="synthetic")
    for kind in (folder, omniglot, synthetic):
        kind.add_argument(
            "--out", type=user_path, required=True, metavar="DIR", help="where train.rec and train.idx go"
        )
        kind.add_argument("--quality", type=int, default=95, choices=range(1, 101), metavar="Q", help="JPEG (95)")
    _add_convert(kinds.add_parser("convert", help="a set of any form, or several, into .rec or tar shards"))


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.description = "Interrupted or killed, the same command goes on where it was."
    parser.add_argument(
        "sources", type=user_path, nargs="+", metavar="SRC", help="a set as training takes it, or its parts"
    )
    parser.add_argument(
        "--out", type=user_path, required=True, metavar="DIR", help="a new folder; DIR.partial until whole"
    )
    parser.add_argument(
        "--to", choices=("rec", "tar"), default="rec", help="train.rec + train.idx (default), or shards"
    )
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="all images in an order that SEED stands for")
    parser.add_argument(
        "--join",
        choices=("offset", "merge"),
        default="offset",
        help="of several SRC: all labels apart, or equal ones one",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="parts written at a time (one per core)")
    parser.add_argument(
        "--images-per-shard", type=int, metavar="N", help="also of a part on the way to .rec (100,000, or some 256 MB)"
    )
    parser.add_argument("--size", type=int, help="crop and resize to this side; without it images keep their bytes")
    parser.add_argument("--quality", type=int, default=95, choices=range(1, 101), metavar="Q", help="JPEG, with --size")
    parser.add_argument("--quarantine", type=user_path, metavar="FILE", help="left out: the list of partial-fc verify")
    add_column_arguments(parser)
    parser.set_defaults(kind="convert")
