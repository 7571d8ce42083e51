"""Checkpoints read again, by any number of ranks; nothing that a file names is ever run."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from partial_fc.checkpoint.layout import CheckpointFolder, Manifest
from partial_fc.checkpoint.networks import misfit
from partial_fc.checkpoint.state_dicts import behind_prefix, weights_in
from partial_fc.checkpoint.training_state import TrainingState, rows_of
from partial_fc.classifier import ShardedClassifier

_LEAST_NORM = 1e-12  # of a row that is brought to unit length


def load_backbone(path: Path, backbone: nn.Module) -> None:
    """Load a file of weights, in any of its wrappings, or a checkpoint's folder into ``backbone``.

    ValueError that says in a line which network the weights are of, and what keeps them from fitting.
    """
    file = path / "backbone.pt" if path.is_dir() else path
    weights, wanted = weights_in(file), backbone.state_dict()
    problem = misfit(weights.tensors, wanted)
    if problem:
        raise ValueError(f"the weights in {weights.place} do not fit this backbone: {problem}")
    backbone.load_state_dict(behind_prefix(weights.tensors, wanted) or {})


def load_training_state(folder: Path, state: TrainingState, seed: int) -> Manifest:
    """Take up a whole checkpoint on this rank, and return its manifest; the run goes on from ``manifest.step``.

    With as many ranks as wrote it, everything is bitwise what it was. With another number each rank reads the rows of
    its classes, BatchNorm starts from the mean over the ranks, and random generators from (``seed``, step, rank).
    ValueError for a file that is damaged, or for another network, objective or number of classes.
    """
    checkpoint = CheckpointFolder(folder)
    manifest = checkpoint.manifest()
    _refuse_other_sizes(folder, manifest, state.head)
    world, files = state.world, [checkpoint.backbone, checkpoint.shared]
    files += files_of_rows(checkpoint, manifest, state.head.shard)
    if (problem := first_problem(checkpoint, manifest, files)) is not None:
        raise ValueError(f"{problem}: take an earlier checkpoint")
    load_backbone(folder, state.backbone)
    load_head(folder, state.head)
    try:
        state.load_shared(tensors_of(checkpoint.shared))
    except ValueError as error:
        raise ValueError(f"{folder} does not fit: {error}") from error
    state.head.steps = manifest.head_steps
    if world.size == manifest.world_size:
        state.load_local(tensors_of(checkpoint.rank(world.rank, world.size), ("buffer.", "rng.")))
    else:
        torch.manual_seed(seed + 1_000_003 * manifest.step + world.rank)
    return manifest


@torch.no_grad()
def load_head(folder: Path, head: ShardedClassifier) -> None:
    """This rank's class rows and their optimizer's state, from the files of the ranks that held them.

    Row state that only one of both has is left out, or left at zero. ValueError for other numbers of classes or
    dimensions.
    """
    _copy_rows(CheckpointFolder(folder), head, {f"row.{key}": tensor for key, tensor in rows_of(head).items()})


@torch.no_grad()
def start_rows(folder: Path, head: ShardedClassifier) -> None:
    """Begin with the class rows of a checkpoint, brought to unit length; the state of their optimizer stays new.

    ValueError for a file that is damaged, and for other numbers of classes or dimensions.
    """
    checkpoint = CheckpointFolder(folder)
    manifest = checkpoint.manifest()
    _refuse_other_sizes(folder, manifest, head)  # before its files are looked at
    if (problem := first_problem(checkpoint, manifest, files_of_rows(checkpoint, manifest, head.shard))) is not None:
        raise ValueError(problem)
    _copy_rows(checkpoint, head, {"row.weight": head.weight})
    head.weight.div_(head.weight.norm(dim=1, keepdim=True).clamp_min(_LEAST_NORM))


def _copy_rows(checkpoint: CheckpointFolder, head: ShardedClassifier, targets: dict[str, Tensor]) -> None:
    """Fill each target ``(c, ...)`` with this rank's part of the tensor of that name, where a file has it."""
    manifest, shard = checkpoint.manifest(), head.shard
    _refuse_other_sizes(checkpoint.path, manifest, head)
    for rank, (first, stop) in enumerate(manifest.classes):
        both = _overlap(range(first, stop), shard)
        if not both:
            continue
        with safe_open(checkpoint.rank(rank, manifest.world_size), framework="pt") as file:
            for name in targets.keys() & set(file.keys()):
                rows = file.get_slice(name)[both.start - first : both.stop - first]
                targets[name][both.start - shard.start : both.stop - shard.start].copy_(rows)


def first_problem(checkpoint: CheckpointFolder, manifest: Manifest, files: list[Path]) -> str | None:
    """What is wrong with the first of ``files`` that is missing or damaged, or None. Reads them up to there."""
    found = (checkpoint.problem(path, manifest.files[path.name]) for path in files)
    return next((problem for problem in found if problem is not None), None)


def files_of_rows(checkpoint: CheckpointFolder, manifest: Manifest, shard: range) -> list[Path]:
    """The files that hold rows of these classes."""
    parts = [range(first, stop) for first, stop in manifest.classes]
    return [checkpoint.rank(rank, len(parts)) for rank, part in enumerate(parts) if _overlap(part, shard)]


def _overlap(saved: range, wanted: range) -> range:
    return range(max(saved.start, wanted.start), min(saved.stop, wanted.stop))


def tensors_of(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, Tensor]:
    """The tensors of a file whose names begin so. ValueError for what is no safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as tensors: {error}") from error


def _refuse_other_sizes(folder: Path, manifest: Manifest, head: ShardedClassifier) -> None:
    saved = manifest.num_classes, manifest.embedding_dim
    if saved != (head.num_classes, head.embedding_dim):
        raise ValueError(
            f"{folder} holds a head of {saved[0]:,} classes x {saved[1]} dimensions: "
            f"expected {head.num_classes:,} x {head.embedding_dim}"
        )
