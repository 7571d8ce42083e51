"""Evaluation of a run on held-out identities: ``partial-fc evaluate RUN_DIR``; training ends with it too."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from data_pipeline.formats.verification_bin.source import BinSource
from launch import assembly
from launch.assembly.run_folder import RunFolder, refuse_inside_set
from launch.command_line import evaluating
from launch.config.loading import ConfigError, load_config
from launch.config.run import Config
from launch.errors import reported
from launch.evaluation.held_out import HeldOut, open_identities, open_pair_set
from launch.evaluation.overlap import overlap
from launch.evaluation.results import evaluate_backbone, evaluate_pair_set
from launch.evaluation.tables import print_pair_results, print_results
from partial_fc import World
from partial_fc.checkpoint.layout import latest_checkpoint
from partial_fc.world import local_device, process_group


def main(argv: Sequence[str] | None = None) -> int:
    """Run one rank and return its exit code (see ``launch/errors.py``)."""
    parser = argparse.ArgumentParser(prog="python -m launch.evaluate", description=__doc__)
    evaluating.add_arguments(parser)
    arguments = parser.parse_args(argv)
    with reported() as outcome:
        run(arguments)
    return outcome.exit_code


def run(arguments: argparse.Namespace) -> None:
    """Evaluate what ``arguments`` name."""
    folder, out = RunFolder(arguments.run_dir), RunFolder(arguments.out or arguments.run_dir)
    config = load_config(folder.config, arguments.set)
    for path in (arguments.data, config.data.evaluate):
        if path is not None:
            refuse_inside_set("--out", out.path, path)
    held_out = _opened(config, arguments)  # what cannot be used is refused before there is a process group
    weights = arguments.weights or latest_checkpoint(folder.checkpoints)
    backbone = assembly.backbone(config.backbone.of_torch_alone(), config.data.image_size, weights)
    device = local_device()
    with process_group() as world:
        backbone, flip = backbone.to(device), arguments.flip
        if arguments.overlap:
            held_out = _compared_with_training(config, arguments, held_out, world, device)
        if isinstance(held_out.source, BinSource):
            path = out.evaluation_of(arguments.pairs)
            of_pairs = evaluate_pair_set(config, backbone, held_out, world, device, path=path, flip=flip)
            if world.rank == 0:
                print_pair_results(of_pairs, arguments.pairs, path)
            return
        evaluation = evaluate_backbone(
            config, backbone, held_out, world, device, metrics=folder.metrics, out=out, flip=flip
        )
        if world.rank == 0:
            print_results(evaluation, held_out.seen, out)


def _opened(config: Config, arguments: argparse.Namespace) -> HeldOut:
    """The images to embed and their pairs: those of a set of pairs where one is given, else the held-out ones."""
    if arguments.pairs is not None and arguments.pairs.suffix.lower() == ".bin":
        if arguments.data is not None:
            raise ConfigError(f"--data {arguments.data}: {arguments.pairs} has images of its own; give one of the two")
        return open_pair_set(arguments.pairs, config.data)
    return open_identities(_held_out_path(config, arguments), config.data, arguments.pairs)


def _held_out_path(config: Config, arguments: argparse.Namespace) -> Path:
    path: Path | None = arguments.data or config.data.evaluate
    if path is None:
        raise ConfigError(f"{RunFolder(arguments.run_dir).config} names no data.evaluate: give --data PATH")
    return path


def _compared_with_training(
    config: Config, arguments: argparse.Namespace, held_out: HeldOut, world: World, device: torch.device
) -> HeldOut:
    """The set with what it shares with the training set, which rank 0 prints."""
    is_pair_set = isinstance(held_out.source, BinSource)
    path = arguments.pairs if is_pair_set else _held_out_path(config, arguments)
    shared = overlap(path, held_out.source, config.data, config.seed, world, device)
    if world.rank == 0:
        for sentence in shared.sentences(held_out.source) or ["no name and no image is that of one trained on"]:
            print(sentence, flush=True)
    return held_out._replace(shared=shared)


if __name__ == "__main__":
    sys.exit(main())
