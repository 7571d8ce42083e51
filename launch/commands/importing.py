"""``partial-fc import``: what a training of arcface_torch left, as a run's folder."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from launch.assembly.moved_in import imported_run
from launch.assembly.run_folder import RunFolder
from launch.config.arcface_torch import translated_config
from launch.config.backbone import BackboneConfig
from launch.config.data import DataConfig
from launch.config.loading import ConfigError, load_config, resolved_yaml
from launch.config.run import Config
from partial_fc.checkpoint.arcface_torch import Training, training_at, write_checkpoint
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
    known = _known(training)
    facts = {"imported_from": str(arguments.source.absolute()), "config": known, "data": _known_data(training)}
    write_checkpoint(training, partial.checkpoints, facts)
    partial.config.write_text(_config(training.network, known, out, arguments.source))
    partial.path.rename(out)
    print(f"{arguments.source}  {training}")
    if training.course is None:
        print(f"{arguments.source}  the optimizer's state will be new: {training.without}")
    go_on = f"--set run_dir={out} to go on" if training.shards else f"--set backbone.weights={out} to begin with it"
    print(
        f"{out}  partial-fc evaluate {out} --data HELD_OUT, or partial-fc train OUR.yaml {go_on}; "
        f"partial-fc import arcface_torch-config JOB.py{f' --run {out}' if training.shards else ''} --out OUR.yaml "
        "makes OUR.yaml"
    )


def _bring_config(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    if arguments.gpus < 1:
        raise ConfigError(f"--gpus {arguments.gpus}: expected at least 1")
    if out.exists():
        raise FileExistsError(f"{out} is there already: give --out another file, or remove it")
    going_on = imported_run(arguments.run) if arguments.run else None
    source: Path = arguments.source
    with_suffix = source.with_name(f"{source.name}.py")
    if not source.exists() and with_suffix.exists():  # arcface_torch takes configs/ms1mv3_r50 for the file with .py
        source = with_suffix
    out.write_text(translated_config(source, arguments.gpus, going_on))
    print(f"{out}  the comments at its top say what is different here, and what has no twin")
    try:
        load_config(out)
    except ConfigError as error:
        print(f"to be set before training: {error}")


def _known(training: Training) -> dict[str, Any]:
    """The keys of a configuration of ours that the files say; a run that goes on with the training has the same."""
    known: dict[str, Any] = {"backbone": {"embedding_dim": training.network.embedding_dim}}
    if training.course is None:
        return known
    group, name = training.course.groups[0], training.course.optimizer
    optimizer = {
        "name": name,
        "learning_rate": group.get("initial_lr", group["lr"]),
        "momentum": group["betas"][0] if name == "adamw" else group["momentum"],
        "weight_decay": group["weight_decay"],
        "decays": "all",
    }
    if name == "sgd":
        optimizer["nesterov"] = group["nesterov"]
    schedule = {"power": float(training.course.schedule["power"])} if "power" in training.course.schedule else {}
    return known | {"optimizer": optimizer, "classifier": {"optimizer": name}, "schedule": schedule}


def _known_data(training: Training) -> dict[str, Any]:
    return {"num_classes": training.num_classes} if training.shards else {}


def _config(network: Network, known: dict[str, Any], out: Path, source: Path) -> str:
    section = BackboneConfig(
        name=network.name, width=network.width, embedding_dim=network.embedding_dim, autocast="float32"
    )
    data = DataConfig(train=_UNKNOWN_SET, image_size=network.input_size)
    sections = {name: keys for name, keys in known.items() if name != "backbone"}
    config = Config(run_dir=out.absolute(), data=data, backbone=section, **sections)
    return f"# Imported from {str(source)!r}, which does not say what it was trained on: data.train is to be set.\n" + (
        resolved_yaml(config)
    )
