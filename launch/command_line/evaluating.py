"""``partial-fc evaluate`` and its ranks."""

from __future__ import annotations

import argparse

from launch.config.section import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every way of starting an evaluation shares."""
    parser.add_argument(
        "run_dir", type=user_path, metavar="RUN_DIR", help="what training wrote: config.yaml and checkpoints/"
    )
    parser.add_argument(
        "--data", type=user_path, help="another set of held-out identities than the config's data.evaluate"
    )
    parser.add_argument("--weights", type=user_path, help="another state dict than the last checkpoint's")
    parser.add_argument("--pairs", type=user_path, help=_PAIRS_HELP)
    parser.add_argument("--flip", action="store_true", help="add the mirrored image's embedding, as is usual for faces")
    parser.add_argument("--overlap", action="store_true", help=_OVERLAP_HELP)
    parser.add_argument("--out", type=user_path, help="where the results go; RUN_DIR unless given")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one value: data.quarantine=held.tsv"
    )


_PAIRS_HELP = (
    "a list of pairs of the held-out images such as LFW's pairs.txt: accuracy over its folds; or a set of pairs with "
    "images of its own such as lfw.bin: these alone, accuracy over ten folds and TAR at FAR, in OUT/evaluation-lfw.json"
)
_OVERLAP_HELP = (
    "say which identities, by name, and which images, byte for byte, are in the config's data.train as well: reads "
    "all of both sets"
)
