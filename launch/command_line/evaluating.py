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
    parser.add_argument("--ijb", type=user_path, metavar="FOLDER", help=_IJB_HELP)
    parser.add_argument(
        "--no-norm-weight", action="store_true", help="with --ijb: embeddings weigh alike in a template, not by length"
    )
    parser.add_argument(
        "--no-detector-score", action="store_true", help="with --ijb: the detector's scores weigh nothing in a template"
    )
    parser.add_argument("--distractors", type=user_path, metavar="SET", help=_DISTRACTORS_HELP)
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
_IJB_HELP = (
    "IJB-B or IJB-C, with the folders meta and loose_crop: faces aligned by the list's landmarks, pooled into "
    "templates; 1:1 and 1:N, in OUT/evaluation-ijbc.json"
)
_DISTRACTORS_HELP = (
    "people who are nobody's mate, a set of any form: the held-out images are searched among them, as in MegaFace, in "
    "OUT/evaluation-among-SET.json"
)
_OVERLAP_HELP = (
    "say which identities, by name, and which images, byte for byte, are in the config's data.train as well: reads "
    "all of both sets"
)
