"""Evaluation of a run on held-out identities: ``partial-fc evaluate RUN_DIR``; training ends with it too."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.formats.verification_bin.source import BinSource
from data_pipeline.sets.identities import identity_names
from data_pipeline.source import Source
from launch import assembly
from launch.assembly.run_folder import RunFolder, refuse_inside_set
from launch.config.loading import ConfigError, load_config
from launch.config.run import Config
from launch.errors import reported
from launch.evaluation.lfw_pairs import PairList, read_pairs
from launch.evaluation.results import evaluate_backbone, evaluate_pair_set
from launch.evaluation.tables import print_pair_results, print_results
from partial_fc.checkpoint.loading import latest_checkpoint
from partial_fc.world import local_device, process_group


def main(argv: Sequence[str] | None = None) -> int:
    """Run one rank and return its exit code (see ``launch/errors.py``)."""
    parser = argparse.ArgumentParser(prog="python -m launch.evaluate", description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    with reported() as outcome:
        run(arguments)
    return outcome.exit_code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every way of starting an evaluation shares."""
    parser.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="what training wrote: config.yaml and checkpoints/"
    )
    parser.add_argument("--data", type=Path, help="another set of held-out identities than the config's data.evaluate")
    parser.add_argument("--weights", type=Path, help="another state dict than the last checkpoint's")
    parser.add_argument("--pairs", type=Path, help=_PAIRS_HELP)
    parser.add_argument("--flip", action="store_true", help="add the mirrored image's embedding, as is usual for faces")
    parser.add_argument("--out", type=Path, help="where the results go; RUN_DIR unless given")


_PAIRS_HELP = (
    "a list of pairs of the held-out images such as LFW's pairs.txt: accuracy over its folds; or a set of pairs with "
    "images of its own such as lfw.bin: these alone, accuracy over ten folds and TAR at FAR, in OUT/evaluation-lfw.json"
)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate what ``arguments`` name."""
    folder, out = RunFolder(arguments.run_dir), RunFolder(arguments.out or arguments.run_dir)
    config = load_config(folder.config)
    for path in (arguments.data, config.data.evaluate):
        if path is not None:
            refuse_inside_set("--out", out.path, path)
    source, pairs = _opened(config, arguments)  # what cannot be used is refused before there is a process group
    weights = arguments.weights or latest_checkpoint(folder.checkpoints)
    backbone = assembly.backbone(config.backbone, config.data.image_size, weights)
    device = local_device()
    with process_group() as world:
        backbone = backbone.to(device)
        if isinstance(source, BinSource):
            path = out.evaluation_of(arguments.pairs)
            of_pairs = evaluate_pair_set(config, backbone, source, world, device, path=path, flip=arguments.flip)
            if world.rank == 0:
                print_pair_results(of_pairs, arguments.pairs, path)
            return
        evaluation = evaluate_backbone(
            config,
            backbone,
            source,
            world,
            device,
            metrics=folder.metrics,
            out=out,
            flip=arguments.flip,
            pairs=pairs,
        )
        if world.rank == 0:
            print_results(evaluation, out)


def _opened(config: Config, arguments: argparse.Namespace) -> tuple[Source, PairList | None]:
    """The images to embed, those of a set of pairs where one is given, else the held-out ones; and a list of pairs."""
    if arguments.pairs is not None and arguments.pairs.suffix.lower() == ".bin":
        if arguments.data is not None:
            raise ConfigError(f"--data {arguments.data}: {arguments.pairs} has images of its own; give one of the two")
        return BinSource(arguments.pairs), None
    held_out = arguments.data or config.data.evaluate
    if held_out is None:
        raise ConfigError(f"{RunFolder(arguments.run_dir).config} names no data.evaluate: give --data PATH")
    source = assembly.open_held_out(held_out, config.data)
    return source, arguments.pairs and read_pairs(arguments.pairs, source.labels, identity_names(source, held_out))


if __name__ == "__main__":
    sys.exit(main())
