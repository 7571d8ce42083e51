"""``partial-fc checkpoint``."""

from __future__ import annotations

import argparse

from launch.config.section import user_path

ACTIONS = {
    "ls": "the checkpoints of a run, and whether every file has its size",
    "show": "what a checkpoint holds: ranks, classes, files, the configuration it was trained with",
    "verify": "read every byte and compare it with the checksums",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand per question."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, help_text in ACTIONS.items():
        action = actions.add_parser(name, help=help_text)
        action.add_argument(
            "path", type=user_path, metavar="RUN|CHECKPOINT", help="a run's folder, or that of one checkpoint"
        )
        action.set_defaults(action=name)
