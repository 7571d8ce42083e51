"""The command ``partial-fc``: train, evaluate, plan, pack, inspect, verify, import."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import torch

import partial_fc
from launch import errors, evaluate, train
from launch.commands import importing, inspect, pack, plan, verify
from launch.config.loading import load_config
from launch.processes import run_ranks


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code (``launch/errors.py`` lists them)."""
    words = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(words, argparse.Namespace(words=words))
    with errors.reported() as outcome:
        outcome.exit_code = arguments.act(arguments)
    return outcome.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="partial-fc",
        description="Train classifiers of millions of identities with a cosine head, sharded over the ranks.",
        epilog=errors.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"partial-fc {partial_fc.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    training = commands.add_parser(
        "train", parents=[_launcher()], help="train on a config, then evaluate on its held-out identities"
    )
    train.add_arguments(training)
    training.set_defaults(act=_train)

    evaluation = commands.add_parser(
        "evaluate", parents=[_launcher()], help="evaluate a run's last checkpoint on held-out identities"
    )
    evaluate.add_arguments(evaluation)
    evaluation.set_defaults(act=_evaluate)

    planning = commands.add_parser("plan", help="say what a config needs: memory, classes that fit, a step's time")
    plan.add_arguments(planning)
    planning.set_defaults(act=plan.run)

    packing = commands.add_parser(
        "pack", help="make a .rec or tar shards of a set of any form, Omniglot's zips or arithmetic"
    )
    pack.add_arguments(packing)
    packing.set_defaults(act=pack.run)

    inspection = commands.add_parser("inspect", help="say what a set of images is, with pictures, and what is wrong")
    inspect.add_arguments(inspection)
    inspection.set_defaults(act=inspect.run)

    verification = commands.add_parser("verify", help="look at every image of a set and list what cannot be used")
    verify.add_arguments(verification)
    verification.set_defaults(act=verify.run)

    moving_in = commands.add_parser("import", help="bring checkpoints and configs of arcface_torch along")
    importing.add_arguments(moving_in)
    moving_in.set_defaults(act=importing.run)
    return parser


def _launcher() -> argparse.ArgumentParser:
    """The arguments of the command that starts ranks: all the others are the ranks' own."""
    parser = argparse.ArgumentParser(add_help=False)
    help_text = "ranks on this machine; auto: one per GPU, or two on CPUs"
    parser.add_argument("--nproc", type=_processes, default="auto", help=help_text)
    return parser


def _words_for_ranks(arguments: argparse.Namespace) -> list[str]:
    """The words of the command line as they came, without the subcommand and the launcher's own."""
    return _launcher().parse_known_args(arguments.words[1:])[1]


def _train(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, arguments.set)  # refuse a bad one before any process starts
    if arguments.nproc > 1:
        return run_ranks("launch.train", _words_for_ranks(arguments), arguments.nproc)
    train.run(config)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.nproc > 1:
        return run_ranks("launch.evaluate", _words_for_ranks(arguments), arguments.nproc)
    evaluate.run(arguments)
    return 0


def _processes(text: str) -> int:
    if text == "auto":
        return torch.cuda.device_count() or min(2, os.cpu_count() or 1)
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of processes, at least 1, or auto")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
