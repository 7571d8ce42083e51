"""A checkpoint of ours as a folder of arcface_torch's, one rank's file after the other.

What is written is what ``arcface_torch.py`` and ``arcface_torch_optimizer.py`` describe, and loads with
``weights_only=True``. Rows keep their length, 1 in a run of ours. There a gradient of the rows is that of the loss's
mean, ``N`` times smaller, and so are their momentum and AdamW's moments; SGD's learning rate of the rows is ``N`` times
larger for it, in a parameter group of its own. Then both step alike, but for the length that their rows gain.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from partial_fc.checkpoint import arcface_torch_optimizer, layout
from partial_fc.checkpoint.arcface_torch_optimizer import Course
from partial_fc.checkpoint.layout import CheckpointFolder, Manifest
from partial_fc.checkpoint.loading import tensors_of
from partial_fc.checkpoint.networks import Network, network_of, parameter_names
from partial_fc.checkpoint.state_dicts import weights_in
from partial_fc.rows.sharding import class_range

_ROWS, _ROW_STATE = "row.weight", "row.row_optimizer."


class Export(NamedTuple):
    """What is exported: a checkpoint, the epoch that is to begin, and how the training steps.

    ``course`` is None where that cannot be said there; no optimizer's state is written then. ``gradient_scale``: by how
    much a gradient of the rows is larger here than there, the batch's size in a run of ours.
    """

    checkpoint: CheckpointFolder
    manifest: Manifest
    network: Network
    backbone: dict[str, Tensor]
    epoch: int
    course: Course | None
    gradient_scale: float


def network_to_export(checkpoint: CheckpointFolder) -> tuple[Network, dict[str, Tensor]]:
    """The network in a checkpoint, and its state dict. ValueError for no checkpoint, and no network there."""
    checkpoint.manifest()
    weights = weights_in(checkpoint.backbone)
    told = network_of(weights.tensors)
    if told is None:
        raise ValueError(f"{checkpoint.backbone} is no network of arcface_torch: only its own can be loaded there")
    return told


def write_folder(export: Export, out: Path, ranks: int) -> None:
    """Write ``out``, with the class rows dealt out over ``ranks``; it appears when it is whole.

    Without class rows ``model.pt`` is all. One rank's rows and state are in memory at a time, for a moment twice.
    ValueError for a damaged checkpoint and for more ranks than classes; OSError for a folder that is there, and for a
    full disk.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: give --out another folder, or remove it")
    if problems := export.checkpoint.problems():
        raise ValueError(f"{problems[0]}: take another checkpoint")
    num_classes = export.manifest.num_classes
    if not 1 <= ranks <= num_classes and num_classes:
        raise ValueError(f"{ranks} ranks for {num_classes:,} classes: expected at least 1, and a class for each")
    out.parent.mkdir(parents=True, exist_ok=True)
    _refuse_full_disk(export, out.parent, ranks)
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    _write(partial / "model.pt", export.backbone)
    for rank in range(ranks if num_classes else 0):
        _write(partial / f"checkpoint_gpu_{rank}.pt", _of_rank(export, rank, ranks))
    layout.sync_folder(partial)
    partial.rename(out)


def _of_rank(export: Export, rank: int, ranks: int) -> dict[str, Any]:
    checkpoint, manifest = export.checkpoint, export.manifest
    classes = class_range(manifest.num_classes, rank, ranks)
    rows = _rows_of(checkpoint, manifest, classes)
    backbone = export.backbone
    if ranks == manifest.world_size:
        own = tensors_of(checkpoint.rank(rank, ranks), ("buffer.",))
        backbone = backbone | {key.removeprefix("buffer."): value for key, value in own.items()}
    content = {
        "epoch": export.epoch,
        "global_step": manifest.step,
        "state_dict_backbone": backbone,
        "state_dict_softmax_fc": {"weight": rows.pop(_ROWS).float()},
    }
    if export.course is None:
        return content
    state = arcface_torch_optimizer.state_optimizer(
        export.course,
        parameter_names(export.network),
        tensors_of(checkpoint.shared, ("optimizer.",)),
        {key.removeprefix(_ROW_STATE): value for key, value in rows.items()},
        export.gradient_scale,
    )
    schedule = {"state_lr_scheduler": export.course.schedule} if export.course.schedule else {}
    return content | {"state_optimizer": state} | schedule


def _rows_of(checkpoint: CheckpointFolder, manifest: Manifest, classes: range) -> dict[str, Tensor]:
    """The class rows and their optimizer's state, of these classes, out of the files of the ranks that held them."""
    found: dict[str, list[Tensor]] = {}
    for rank, (first, stop) in enumerate(manifest.classes):
        part = slice(max(first, classes.start) - first, min(stop, classes.stop) - first)
        if part.start >= part.stop:
            continue
        with safe_open(checkpoint.rank(rank, manifest.world_size), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if name == _ROWS or name.startswith(_ROW_STATE):
                    found.setdefault(name, []).append(file.get_slice(name)[part])
    return {name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in found.items()}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    torch.save(content, path)
    layout.sync(path)


def _refuse_full_disk(export: Export, folder: Path, ranks: int) -> None:
    """OSError where the disk has no room."""
    of_backbone = sum(each.nbytes for each in export.backbone.values())
    sizes = {name: facts.size_bytes for name, facts in export.manifest.files.items()}
    of_rows = 2 * sum(size for name, size in sizes.items() if name.startswith("rank-"))  # bfloat16 becomes float32
    needed = of_rows + of_backbone + ranks * (of_backbone + sizes[export.checkpoint.shared.name])
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"no space in {folder}: the export needs up to {needed:,} bytes, and {free:,} are free")
