"""``partial-fc pack``: the arguments of each kind of source, and the call that packs it."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_pipeline.pack import pack_folder, pack_omniglot, pack_synthetic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand per kind of source."""
    kinds = parser.add_subparsers(required=True, metavar="KIND")

    folder = kinds.add_parser("folder", help="one folder of images per identity")
    folder.add_argument("source", type=Path, metavar="SRC")
    folder.add_argument("--size", type=int, help="crop and resize to this side; without it JPEGs keep their bytes")
    folder.set_defaults(pack=lambda a: pack_folder(a.source, a.out, size=a.size, quality=a.quality))

    omniglot = kinds.add_parser("omniglot", help="Omniglot's zips")
    omniglot.add_argument("zips", type=Path, nargs="+", metavar="ZIP")
    omniglot.add_argument("--size", type=int, default=32, help="side in pixels (default 32)")
    omniglot.add_argument("--no-rotations", action="store_true", help="do not count turned characters as others")
    omniglot.set_defaults(
        pack=lambda a: pack_omniglot(a.zips, a.out, size=a.size, quality=a.quality, rotations=not a.no_rotations)
    )

    synthetic = kinds.add_parser("synthetic", help="faces drawn by arithmetic")
    synthetic.add_argument("--identities", type=int, required=True)
    synthetic.add_argument("--images", type=int, required=True, help="of each identity")
    synthetic.add_argument("--size", type=int, default=64, help="side in pixels (default 64)")
    synthetic.add_argument("--first-identity", type=int, default=0, help="number of the first person")
    synthetic.add_argument("--seed", type=int, default=0)
    synthetic.set_defaults(
        pack=lambda a: pack_synthetic(
            a.out,
            identities=a.identities,
            images=a.images,
            size=a.size,
            quality=a.quality,
            seed=a.seed,
            first_identity=a.first_identity,
        )
    )
    for kind in (folder, omniglot, synthetic):
        kind.add_argument("--out", type=Path, required=True, metavar="DIR", help="where train.rec and train.idx go")
        kind.add_argument("--quality", type=int, default=95, choices=range(1, 101), metavar="Q", help="JPEG (95)")


def run(arguments: argparse.Namespace) -> int:
    """Pack what ``arguments`` name and return the exit code."""
    arguments.pack(arguments)
    return 0
