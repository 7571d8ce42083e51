"""The command ``partial-fc`` and its subcommands, from train to checkpoint."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from launch import errors
from launch.command_line import (
    aligning,
    checkpoints,
    cleaning,
    embedding,
    evaluating,
    exporting,
    importing,
    inspecting,
    packing,
    planning,
    profiling,
    searching,
    top,
    training,
    verifying,
)
from launch.config.apex import refuse_missing_apex
from launch.config.loading import ConfigError, load_config
from launch.meeting import Meeting
from launch.processes import run_ranks
from launch.resilience.hearing import leave_on_sigterm


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code (``launch/errors.py`` lists them)."""
    words = sys.argv[1:] if argv is None else argv
    arguments = command_parser().parse_args(words, argparse.Namespace(words=words))
    if "nproc" in arguments:  # a training, and what else starts ranks; the first process of a container hears nothing
        leave_on_sigterm()  # unless it says so
    with errors.reported() as outcome:
        outcome.exit_code = arguments.act(arguments)
    return outcome.exit_code


def command_parser() -> argparse.ArgumentParser:
    """What the command line is read by, with every command in it."""
    parser = argparse.ArgumentParser(
        prog="partial-fc",
        description="Train classifiers of millions of identities with a cosine head, sharded over the ranks.",
        epilog=errors.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, arguments: Any, act: Callable[..., int], help_text: str, launches: bool = False) -> None:
        command = commands.add_parser(name, parents=[_launcher()] if launches else [], help=help_text)
        arguments.add_arguments(command)
        command.set_defaults(act=act)

    add("train", training, _train, "train on a config, then evaluate on its held-out identities", launches=True)
    add("top", top, _run("top"), "watch a run from a terminal, by its folder or its ranks' metrics")
    add("evaluate", evaluating, _evaluate, "evaluate a run's last checkpoint on held-out identities", launches=True)
    add("profile", profiling, _profile, "record some steps of a training: where its time goes", launches=True)
    add("plan", planning, _plan, "say what a config needs: memory, classes that fit, a step's time")
    add("pack", packing, _run("pack"), "make a .rec or tar shards of a set of any form, Omniglot's zips or arithmetic")
    add("align", aligning, _run("align"), "set the faces of a folder upright by their landmarks")
    add("inspect", inspecting, _run("inspect"), "say what a set of images is, with pictures, and what is wrong")
    add("verify", verifying, _run("verify"), "look at every image of a set and list what cannot be used")
    add("clean", cleaning, _run("clean"), "find wrong labels, one person under two names, and pictures of a test set")
    add("import", importing, _run("importing"), "bring checkpoints and configs of arcface_torch along")
    add("export", exporting, _run("export"), "write a trained network as ONNX, pt2, safetensors or a state dict")
    add("embed", embedding, _embed, "embed a set of images into .npy or Parquet, on all ranks", launches=True)
    add("search", searching, _run("search"), "say who is nearest to a picture among the embeddings of a set")
    add("checkpoint", checkpoints, _run("checkpoint"), "list, show, verify and export the checkpoints of a run")
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import partial_fc

        print(f"partial-fc {partial_fc.__version__}")
        parser.exit()


def _run(name: str) -> Callable[[argparse.Namespace], int]:
    """The command of one process in ``launch/commands``, which is imported when it is to run: most need torch."""

    def act(arguments: argparse.Namespace) -> int:
        exit_code: int = import_module(f"launch.commands.{name}").run(arguments)
        return exit_code

    return act


def _launcher() -> argparse.ArgumentParser:
    """The arguments of the command that starts ranks: all the others are the ranks' own."""
    parser = argparse.ArgumentParser(add_help=False)
    help_text = "ranks on this machine; auto: one per GPU, or two on CPUs"
    parser.add_argument("--nproc", type=_processes, default="auto", help=help_text)
    help_text = "when a rank fails, start all again so often; they go on from the last checkpoint (0)"
    parser.add_argument("--max-restarts", type=int, default=0, metavar="N", help=help_text)
    help_text = "machines, each of which is given this command: 4; or 2:4, to go on with as few as 2"
    parser.add_argument("--nodes", type=_nodes, metavar="N[:M]", help=help_text)
    help_text = "a port of one of them, where the machines meet; needed with --nodes"
    parser.add_argument("--meet", metavar="HOST:PORT", help=help_text)
    parser.add_argument("--address", help="of this machine, as the others reach it (default: that which reaches HOST)")
    return parser


def _meeting(arguments: argparse.Namespace) -> dict[str, Meeting]:
    """Where the machines of a run meet; nothing for a run on this one. ConfigError for half of it."""
    if (arguments.nodes is None) != (arguments.meet is None):
        raise ConfigError("--nodes says how many machines there are, --meet where they meet: give both, or neither")
    if arguments.address and not arguments.nodes:
        raise ConfigError("--address is how the other machines reach this one: give --nodes and --meet with it")
    return {"meeting": Meeting(arguments.nodes, arguments.meet, arguments.address)} if arguments.nodes else {}


def _words_for_ranks(arguments: argparse.Namespace) -> list[str]:
    """The words of the command line as they came, without the subcommand and the launcher's own."""
    return _launcher().parse_known_args(arguments.words[1:])[1]


def _train(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, arguments.set)  # refuse a bad one before any process starts
    refuse_missing_apex(config)
    return _on_ranks("launch.train", arguments, config)


def _plan(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, arguments.set)  # likewise, before torch is imported
    from launch.commands import plan

    return plan.run(arguments, config)


def _evaluate(arguments: argparse.Namespace) -> int:
    return _on_ranks("launch.evaluate", arguments, arguments)


def _embed(arguments: argparse.Namespace) -> int:
    return _on_ranks("launch.embed", arguments, arguments)


def _profile(arguments: argparse.Namespace) -> int:
    refuse_missing_apex(load_config(arguments.config, arguments.set))
    if arguments.max_restarts:
        raise ConfigError("--max-restarts: a profile has nothing to go on from; leave it out")
    return _on_ranks("launch.profiling", arguments, arguments)


def _on_ranks(module: str, arguments: argparse.Namespace, alone: Any) -> int:
    """The exit code of the ranks of ``module``; one rank without restarts is ``run(alone)`` in this process."""
    meeting = _meeting(arguments)
    if (ranks := arguments.nproc or _ranks()) > 1 or arguments.max_restarts or meeting:
        return run_ranks(module, _words_for_ranks(arguments), ranks, arguments.max_restarts, **meeting)
    import_module(module).run(alone)
    return 0


def _processes(text: str) -> int | None:
    if text != "auto" and (not text.isdigit() or int(text) < 1):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of processes, at least 1, or auto")
    return None if text == "auto" else int(text)


def _nodes(text: str) -> str:
    least, _, most = text.partition(":")
    if not (least.isdigit() and (not most or most.isdigit()) and 1 <= int(least) <= int(most or least)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of machines, such as 4, or a range, such as 2:4")
    return text


def _ranks() -> int:
    """One for each GPU, or two on CPUs."""
    import torch

    return torch.cuda.device_count() or min(2, os.cpu_count() or 1)


if __name__ == "__main__":
    sys.exit(main())
