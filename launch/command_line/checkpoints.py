"""``partial-fc checkpoint``."""

from __future__ import annotations

import argparse

from launch.config.section import user_path

ACTIONS = {
    "ls": "the checkpoints of a run, and whether every file has its size",
    "show": "what a checkpoint holds: ranks, classes, files, the configuration it was trained with",
    "verify": "read every byte and compare it with the checksums",
    "export": "write a checkpoint, of a run its last, as a folder of arcface_torch's: weights, class rows, optimizer",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand per question."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, help_text in ACTIONS.items():
        action = actions.add_parser(name, help=help_text)
        action.add_argument(
            "path", type=user_path, metavar="RUN|CHECKPOINT", help="a run's folder, or that of one checkpoint"
        )
        if name == "export":
            _add_export(action)
        action.set_defaults(action=name)


def _add_export(action: argparse.ArgumentParser) -> None:
    action.add_argument("--out", type=user_path, required=True, metavar="FOLDER", help="a new folder")
    action.add_argument("--format", choices=["arcface_torch"], default="arcface_torch", help="the only one so far")
    action.add_argument(
        "--ranks", type=int, metavar="N", help="deal the class rows out over so many; left out: as many as wrote them"
    )
