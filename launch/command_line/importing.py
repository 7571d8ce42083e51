"""``partial-fc import``."""

from __future__ import annotations

import argparse

from launch.config.section import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand per kind of thing that is brought along."""
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    training = kinds.add_parser("arcface_torch", help="its checkpoints or weights, as a run's folder")
    training.add_argument(
        "source",
        type=user_path,
        metavar="FOLDER|FILE",
        help="the folder with checkpoint_gpu_*.pt, model.pt or backbone.pth, or one of these files",
    )
    training.add_argument("--out", type=user_path, required=True, metavar="RUN", help="a new folder")
    training.set_defaults(kind="training")

    config = kinds.add_parser("arcface_torch-config", help="its config in Python, as YAML; read, never run")
    config.add_argument("source", type=user_path, metavar="FILE.py", help="a job's file; base.py beside it is read too")
    config.add_argument("--out", type=user_path, required=True, metavar="OUR.yaml", help="a new file")
    config.add_argument(
        "--run",
        type=user_path,
        metavar="RUN",
        help="what `import arcface_torch` made of that training, to go on with: its schedule, the pace of its rows",
    )
    config.add_argument("--gpus", type=int, default=8, metavar="N", help="batch_size is of each of them (default 8)")
    config.set_defaults(kind="config")
