"""Checkpoints read again, by any number of ranks; nothing that a file names is ever run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from partial_fc.checkpoint.identities import (
    RowCounts,
    SavedRows,
    copy_rows,
    has_identities,
    rows_by_identity,
    rows_by_label,
    stretches,
)
from partial_fc.checkpoint.layout import CheckpointFolder, Manifest
from partial_fc.checkpoint.networks import misfit
from partial_fc.checkpoint.state_dicts import behind_prefix, weights_in
from partial_fc.checkpoint.training_state import TrainingState, rows_of
from partial_fc.classifier import ShardedClassifier
from partial_fc.rows.sampling import initial_rows

_LEAST_NORM = 1e-12  # of a row that is brought to unit length
_SEED_STRIDE = 1_000_003  # between the seeds of two steps
_BY_LABEL = (
    ", as nothing says whose its rows are: go on with the set it was trained on, or take its backbone.weights alone"
)


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


class TakenUp(NamedTuple):
    """The step that a run goes on after, and what became of its class rows."""

    step: int
    rows: RowCounts


def load_training_state(folder: Path, state: TrainingState, seed: int) -> TakenUp:
    """Take up a whole checkpoint on this rank, and return the step after which the run goes on.

    With as many ranks as wrote it, everything is bitwise what it was. With another number each rank reads the rows of
    its classes, BatchNorm starts from the mean over the ranks, and random generators from (``seed``, step, rank). Of
    class rows, :func:`load_head` says more. ValueError for a file that is damaged, or for another network, objective
    or head.
    """
    checkpoint = CheckpointFolder(folder)
    manifest, world = checkpoint.manifest(), state.world
    own = [checkpoint.rank(world.rank, world.size)] if world.size == manifest.world_size else []
    files = [checkpoint.backbone, checkpoint.shared, *own]
    rows = _take_rows(checkpoint, state.head, state.identities_c, _row_targets(state.head), files)
    load_backbone(folder, state.backbone)
    try:
        state.load_shared(tensors_of(checkpoint.shared))
    except ValueError as error:
        raise ValueError(f"{folder} does not fit: {error}") from error
    state.head.steps = manifest.head_steps
    if own:
        state.load_local(tensors_of(own[0], ("buffer.", "rng.")))
    else:
        torch.manual_seed(seed + _SEED_STRIDE * manifest.step + world.rank)
    return TakenUp(manifest.step, rows)


def load_head(folder: Path, head: ShardedClassifier, identities_c: Tensor | None = None) -> RowCounts:
    """Take up this rank's class rows and their optimizer's state, from the files of the ranks that held them.

    Where both sides know whose their rows are, each identity has the row and state that it had, bitwise, under
    whatever label; one that is new begins with a row drawn from (seed, steps done, class id), which is none that the
    run began with, and new state. Otherwise a class is its label, and their number is to be the same. ``head`` is new:
    row state that only one side has is left out, or left at zero.

    ValueError for a file that is damaged, for other numbers of classes or dimensions, and where no identity is kept.
    One all-reduce of a number.
    """
    return _take_rows(CheckpointFolder(folder), head, identities_c, _row_targets(head))


@torch.no_grad()
def start_rows(folder: Path, head: ShardedClassifier, identities_c: Tensor | None = None) -> RowCounts:
    """Begin with the class rows of a checkpoint, brought to unit length; the state of their optimizer stays new.

    Rows and errors are those of :func:`load_head`.
    """
    rows = _take_rows(CheckpointFolder(folder), head, identities_c, {"row.weight": head.weight})
    head.weight.div_(head.weight.norm(dim=1, keepdim=True).clamp_min(_LEAST_NORM))
    return rows


def _row_targets(head: ShardedClassifier) -> dict[str, Tensor]:
    return {f"row.{key}": tensor for key, tensor in rows_of(head).items()}


@torch.no_grad()
def _take_rows(
    checkpoint: CheckpointFolder,
    head: ShardedClassifier,
    identities_c: Tensor | None,
    targets: dict[str, Tensor],
    files: Sequence[Path] = (),
) -> RowCounts:
    """Fill each target ``(c, ...)`` with the rows of the tensor of that name, where a file has it.

    Before anything is changed, ``files`` and those of the rows are looked at for damage.
    """
    manifest = checkpoint.manifest()
    found, counts = _found_rows(checkpoint, manifest, head, identities_c)
    refuse_damage(checkpoint, manifest, [*files, *(rows.file for rows in found)])
    is_new_c = torch.ones(len(head.shard), dtype=torch.bool)
    for rows in found:
        is_new_c[rows.columns_m] = False
        with safe_open(rows.file, framework="pt") as file:
            for name in targets.keys() & set(file.keys()):
                copy_rows(file.get_slice(name), rows, targets[name])
    seed = head.seed + _SEED_STRIDE * (manifest.head_steps + 1)  # other rows than those that kept ones began with
    for columns in stretches(is_new_c):
        new_rows_bD = initial_rows(head.shard[columns], head.embedding_dim, seed)
        head.weight[columns] = new_rows_bD.to(head.weight)
    return counts


def _found_rows(
    checkpoint: CheckpointFolder, manifest: Manifest, head: ShardedClassifier, identities_c: Tensor | None
) -> tuple[list[SavedRows], RowCounts]:
    """Where this rank's rows lie, and how many of all ranks are kept, new and removed."""
    if identities_c is None or not has_identities(checkpoint):
        _refuse_other_sizes(checkpoint.path, manifest, head, classes=True)
        return rows_by_label(checkpoint, head.shard), RowCounts(head.num_classes, 0, 0)
    _refuse_other_sizes(checkpoint.path, manifest, head, classes=False)
    found = rows_by_identity(checkpoint, head.shard, identities_c)
    own = sum(len(rows.columns_m) for rows in found)
    kept = int(head.world.all_sum(torch.tensor(own, device=head.weight.device)))
    if not kept:
        raise ValueError(
            f"{checkpoint.path} has a row for none of the {head.num_classes:,} identities of this set, but for "
            f"{manifest.num_classes:,} others. They are known by their names (of folders, in lists and tables, in "
            "identities.tsv beside the files), else by their numbers: give this set the names that the other had"
        )
    return found, RowCounts(kept, head.num_classes - kept, manifest.num_classes - kept)


def refuse_damage(
    checkpoint: CheckpointFolder, manifest: Manifest, files: Sequence[Path], cure: str = "take an earlier checkpoint"
) -> None:
    """ValueError for the first of ``files`` that is missing or damaged. Reads them up to there, each once."""
    for path in dict.fromkeys(files):
        if (problem := checkpoint.problem(path, manifest.files[path.name])) is not None:
            raise ValueError(f"{problem}: {cure}")


def tensors_of(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, Tensor]:
    """The tensors of a file whose names begin so. ValueError for what is no safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as tensors: {error}") from error


def _refuse_other_sizes(folder: Path, manifest: Manifest, head: ShardedClassifier, *, classes: bool) -> None:
    """ValueError for rows of other dimensions, and, where a class is its label, for another number of ``classes``."""
    if manifest.embedding_dim == head.embedding_dim and (manifest.num_classes == head.num_classes or not classes):
        return
    raise ValueError(
        f"{folder} holds a head of {manifest.num_classes:,} classes x {manifest.embedding_dim} dimensions: "
        f"expected {head.num_classes:,} x {head.embedding_dim}"
        f"{_BY_LABEL if manifest.embedding_dim == head.embedding_dim else ''}"
    )
