"""``partial-fc import``: what a training of arcface_torch left, as a run's folder."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from launch.assembly.run_folder import RunFolder
from launch.config.arcface_torch import translated_config
from launch.config.backbone import BackboneConfig
from launch.config.data import DataConfig
from launch.config.loading import ConfigError, load_config, resolved_yaml
from launch.config.run import Config
from partial_fc.checkpoint.arcface_torch import training_at, write_checkpoint
from partial_fc.checkpoint.networks import Network

_UNKNOWN_SET = Path("the-training-set")  # no checkpoint says which it was


def run(arguments: argparse.Namespace) -> int:
    """Import what ``arguments`` name and return the exit code."""
    {"training": _bring_training, "config": _bring_config}[arguments.kind](arguments)
    return 0


def _bring_training(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"{out} is there already: give --out another folder, or remove it")
    training = training_at(arguments.source)
    partial = RunFolder(out.with_name(f"{out.name}.partial"))
    shutil.rmtree(partial.path, ignore_errors=True)
    facts = {"imported_from": str(arguments.source), "epoch": training.progress.epoch}
    write_checkpoint(training, partial.checkpoints, facts)
    partial.config.write_text(_config(training.network, out, arguments.source))
    partial.path.rename(out)
    print(f"{arguments.source}  {training}")
    rows = f" and, on the same identities, classifier.rows={out}" if training.shards else ""
    print(f"{out}  partial-fc evaluate {out} --data HELD_OUT, or training with backbone.weights={out}{rows}")


def _bring_config(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    if arguments.gpus < 1:
        raise ConfigError(f"--gpus {arguments.gpus}: expected at least 1")
    if out.exists():
        raise FileExistsError(f"{out} is there already: give --out another file, or remove it")
    out.write_text(translated_config(arguments.source, arguments.gpus))
    print(f"{out}  the comments at its top say what is different here, and what has no twin")
    try:
        load_config(out)
    except ConfigError as error:
        print(f"to be set before training: {error}")


def _config(network: Network, out: Path, source: Path) -> str:
    section = BackboneConfig(
        name=network.name, width=network.width, embedding_dim=network.embedding_dim, autocast="float32"
    )
    data = DataConfig(train=_UNKNOWN_SET, image_size=network.input_size)
    config = Config(run_dir=out.absolute(), data=data, backbone=section)
    return f"# Imported from {str(source)!r}, which does not say what it was trained on: data.train is to be set.\n" + (
        resolved_yaml(config)
    )
