"""Evaluation of a run on held-out identities: ``partial-fc evaluate RUN_DIR``; training ends with it too."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

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
from launch.processes import PATIENCE_SECONDS, end_with
from launch.protocols.among_distractors import evaluate_among_distractors
from launch.protocols.ijb import Pooling, evaluate_ijb, open_ijb
from launch.protocols.tables import show_among_distractors, show_ijb
from partial_fc import World
from partial_fc.checkpoint.layout import is_of_arcface_torch, latest_checkpoint
from partial_fc.world import local_device, process_group


def main(argv: Sequence[str] | None = None) -> int:
    """Run one rank and return its exit code (see ``launch/errors.py``)."""
    parser = argparse.ArgumentParser(prog="python -m launch.evaluate", description=__doc__)
    evaluating.add_arguments(parser)
    arguments = parser.parse_args(argv)
    with reported() as outcome:
        run(arguments)
    return outcome.exit_code


class Job(NamedTuple):
    """What is asked for, and what it needs."""

    config: Config
    arguments: argparse.Namespace
    folder: RunFolder
    out: RunFolder


Measurement = Callable[[nn.Module, World, torch.device], None]


def _refuse_what_is_not_imported(folder: RunFolder) -> None:
    """ConfigError for what arcface_torch left, where a run is expected."""
    path = folder.path
    if folder.config.exists():
        return
    if path.suffix in (".pt", ".pth") or is_of_arcface_torch(path):
        raise ConfigError(
            f"{path} is no run: partial-fc import arcface_torch {path} --out RUN makes one of arcface_torch's files"
        )


def run(arguments: argparse.Namespace) -> None:
    """Evaluate what ``arguments`` name."""
    folder, out = RunFolder(arguments.run_dir), RunFolder(arguments.out or arguments.run_dir)
    _refuse_what_is_not_imported(folder)
    config = load_config(folder.config, arguments.set)
    for path in (arguments.data, config.data.evaluate, arguments.ijb, arguments.distractors):
        if path is not None:
            refuse_inside_set("--out", out.path, path)
    # What cannot be used is refused before there is a process group.
    measure = _opened(Job(config, arguments, folder, out))
    weights = arguments.weights or latest_checkpoint(folder.checkpoints)
    backbone = assembly.backbone(config.backbone.of_torch_alone(), config.data.image_size, weights)
    device = local_device()
    with process_group(PATIENCE_SECONDS) as world:
        measure(backbone.to(device), world, device)


def _opened(job: Job) -> Measurement:
    """What is to be done with a backbone, all that it needs being open. ConfigError for options that exclude others."""
    given = job.arguments
    if given.ijb is not None:
        _refuse_beside("--ijb", given, "pairs", "data", "distractors", "overlap")
        return _ijb(job)
    for name in ("no_norm_weight", "no_detector_score"):
        if getattr(given, name):
            raise ConfigError(f"--{name.replace('_', '-')} is of the templates of --ijb FOLDER: give both, or neither")
    if given.distractors is not None:
        _refuse_beside("--distractors", given, "pairs")
        return _among_distractors(job)
    if given.pairs is not None and given.pairs.suffix.lower() == ".bin":
        if given.data is not None:
            raise ConfigError(f"--data {given.data}: {given.pairs} has images of its own; give one of the two")
        return _pair_set(job)
    return _identities(job)


def _refuse_beside(option: str, given: argparse.Namespace, *others: str) -> None:
    for other in others:
        if getattr(given, other):
            raise ConfigError(f"{option} and --{other} exclude each other: give one of the two")


def _identities(job: Job) -> Measurement:
    """Held-out people, all pairs of them, and the pairs of a list."""
    config, path = job.config, _held_out_path(job)
    opened = open_identities(path, config.data, job.arguments.pairs)

    def measure(backbone: nn.Module, world: World, device: torch.device) -> None:
        held_out = _compared_with_training(job, path, opened, world, device)
        evaluation = evaluate_backbone(
            *(config, backbone, held_out, world, device),
            metrics=job.folder.metrics,
            out=job.out,
            flip=job.arguments.flip,
        )
        if world.rank == 0:
            print_results(evaluation, held_out.seen, job.out)

    return measure


def _pair_set(job: Job) -> Measurement:
    """The pairs of a ``.bin``."""
    pairs, flip = job.arguments.pairs, job.arguments.flip
    opened, path = open_pair_set(pairs, job.config.data), job.out.evaluation_of(pairs)

    def measure(backbone: nn.Module, world: World, device: torch.device) -> None:
        held_out = _compared_with_training(job, pairs, opened, world, device)
        evaluation = evaluate_pair_set(job.config, backbone, held_out, world, device, path=path, flip=flip)
        if world.rank == 0:
            print_pair_results(evaluation, pairs, path)

    return measure


def _ijb(job: Job) -> Measurement:
    """The templates of IJB-B or IJB-C."""
    given = job.arguments
    ijb = open_ijb(given.ijb, job.config.data.image_size)
    pooling = Pooling(given.flip, not given.no_norm_weight, not given.no_detector_score)
    path = job.out.evaluation_called(ijb.folder.name)

    def measure(backbone: nn.Module, world: World, device: torch.device) -> None:
        evaluation = evaluate_ijb(job.config, backbone, ijb, pooling, world, device, path=path)
        if world.rank == 0:
            show_ijb(evaluation, path, ijb.folder.name)

    return measure


def _among_distractors(job: Job) -> Measurement:
    """Held-out people searched among distractors."""
    section, others, flip = job.config.data, job.arguments.distractors, job.arguments.flip
    held_out_path = _held_out_path(job)
    opened = open_identities(held_out_path, section)
    source = assembly.open_held_out(others, section)
    distractors = HeldOut(source, assembly.quarantined(section, source))
    path = job.out.evaluation_called(f"among-{others.stem}")

    def measure(backbone: nn.Module, world: World, device: torch.device) -> None:
        probes = _compared_with_training(job, held_out_path, opened, world, device)
        parts = (job.config, backbone, probes, distractors, world, device)
        evaluation = evaluate_among_distractors(*parts, path=path, flip=flip)
        if world.rank == 0:
            show_among_distractors(evaluation, path)

    return measure


def _held_out_path(job: Job) -> Path:
    path: Path | None = job.arguments.data or job.config.data.evaluate
    if path is None:
        raise ConfigError(f"{job.folder.config} names no data.evaluate: give --data PATH")
    return path


def _compared_with_training(job: Job, path: Path, held_out: HeldOut, world: World, device: torch.device) -> HeldOut:
    """The set in ``path`` with what it shares with the training set, which rank 0 prints; as it is unless asked for."""
    if not job.arguments.overlap:
        return held_out
    shared = overlap(path, held_out.source, job.config.data, job.config.seed, world, device)
    if world.rank == 0:
        for sentence in shared.sentences(held_out.source) or ["no name and no image is that of one trained on"]:
            print(sentence, flush=True)
    return held_out._replace(shared=shared)


if __name__ == "__main__":
    end_with(main)
