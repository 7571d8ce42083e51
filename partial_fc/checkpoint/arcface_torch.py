"""What arcface_torch leaves of a training, read and written as a checkpoint of ours.

::

    checkpoint_gpu_{rank}.pt    epoch, global_step, state_dict_backbone, state_dict_softmax_fc: this rank's rows,
                                state_optimizer, state_lr_scheduler
    model.pt, backbone.pth      the backbone's state dict alone

The rows are dealt out as they are here: contiguous, one more on the first ``C % W`` of ``W`` ranks. They are not of
unit length, and they and their optimizer's state stay as they are in the checkpoint: ``taking_up.py`` brings them to
unit length in the run that goes on. ``backbone.pt`` has BatchNorm's statistics of rank 0, which are those of
``model.pt``; the file of each rank has its own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from partial_fc.backbones import BACKBONES
from partial_fc.checkpoint import arcface_torch_optimizer, layout
from partial_fc.checkpoint.arcface_torch_optimizer import Course
from partial_fc.checkpoint.layout import CheckpointFolder, Manifest
from partial_fc.checkpoint.networks import Network, network_of, parameter_names
from partial_fc.checkpoint.state_dicts import tensors_in, weights_in
from partial_fc.checkpoint.writing import write_backbone, write_tensors
from partial_fc.rows.sharding import class_range

_SHARD = re.compile(r"checkpoint_gpu_(\d+)\.pt")
_ALONE = ("model.pt", "backbone.pth")
_ORIGIN = "arcface_torch"  # the key of a manifest's facts


class Progress(NamedTuple):
    """How far a training was when it was saved."""

    epoch: int = 0
    step: int = 0

    def __str__(self) -> str:
        return f"epoch {self.epoch}, step {self.step:,}"


@dataclass(frozen=True)
class Training:
    """A training of arcface_torch as it lies on disk: its network, and the files of the class rows in order of ranks.

    ``shards`` is empty where there is a backbone alone; ``num_classes`` and ``progress`` are 0 then. ``course`` is None
    where no state of the optimizer can be taken over, for the reason ``without``.
    """

    network: Network
    backbone: dict[str, Tensor]
    shards: tuple[Path, ...] = ()
    num_classes: int = 0
    progress: Progress = field(default_factory=Progress)
    course: Course | None = None
    without: str = "there is no checkpoint_gpu_0.pt"

    def __str__(self) -> str:
        if not self.shards:
            return f"{self.network}; no class rows"
        return f"{self.network}; {self.num_classes:,} classes of {len(self.shards)} ranks; at {self.progress}"


class Origin(NamedTuple):
    """What the manifest of an imported checkpoint says of the training that it came from.

    ``row_length``: the median length of the class rows, None where there are none.
    """

    epoch: int
    course: Course | None
    without: str
    row_length: float | None

    @classmethod
    def of(cls, manifest: Manifest) -> Origin | None:
        """That of a checkpoint; None where a run of ours saved it."""
        facts = manifest.facts.get(_ORIGIN)
        if facts is None:
            return None
        course = facts["course"]
        return cls(facts["epoch"], Course(**course) if course else None, facts["without"], facts["row_length"])

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {_ORIGIN: {**self._asdict(), "course": self.course._asdict() if self.course else None}}


def training_at(path: Path) -> Training:
    """What lies at ``path``: a folder, one of its ``checkpoint_gpu_*.pt``, which stands for all, or a backbone's file.

    ValueError for a network that is none of ours, for missing shards and for shards of different trainings.
    """
    folder = path.parent if _SHARD.fullmatch(path.name) else path
    shards = _shards(folder) if folder.is_dir() else ()
    file = shards[0] if shards else _backbone_file(path)
    weights = weights_in(file)
    told = network_of(weights.tensors)
    if told is None:
        key, value = next(iter(weights.tensors.items()))
        raise ValueError(
            f"the weights in {weights.place} are those of no network here, which are {', '.join(BACKBONES)}: "
            f"{len(weights.tensors)} tensors, the first is {key} {tuple(value.shape)}"
        )
    network, backbone = told
    if not shards:
        return Training(network, backbone)
    num_classes, content = _checked_classes(shards, network.embedding_dim), tensors_in(file)
    try:
        names = parameter_names(network)
        course, without = arcface_torch_optimizer.course_of(content, len(names)), ""
        arcface_torch_optimizer.backbone_state(content, {name: backbone[name] for name in names})
    except ValueError as error:
        course, without = None, str(error)
    return Training(network, backbone, shards, num_classes, _progress(content), course, without)


def write_checkpoint(training: Training, folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write ``folder/step-<step>``, one part of the head after the other, and return it.

    ValueError for an optimizer's state whose shapes are not those of the weights.
    """
    step, ranks = training.progress.step, len(training.shards)
    partial = CheckpointFolder(layout.partial_folder(folder, step))
    shutil.rmtree(partial.path, ignore_errors=True)
    partial.path.mkdir(parents=True)
    shared, lengths = {}, [torch.empty(0)]
    if training.course is not None:
        parameters = {name: training.backbone[name] for name in parameter_names(training.network)}
        shared = arcface_torch_optimizer.backbone_state(tensors_in(training.shards[0]), parameters)
    files = dict([write_backbone(partial.backbone, training.backbone), write_tensors(partial.shared, shared)])
    for rank, shard in enumerate(training.shards):
        tensors = _of_rank(shard, training)
        lengths.append(tensors["row.weight"].norm(dim=1))
        name, file = write_tensors(partial.rank(rank, ranks), tensors)
        files[name] = file
    classes = [class_range(training.num_classes, rank, ranks) for rank in range(ranks)]
    length = float(torch.cat(lengths).median()) if ranks else None
    origin = Origin(training.progress.epoch, training.course, training.without, length)
    manifest = Manifest(
        step=step,
        head_steps=step,
        num_classes=training.num_classes,
        embedding_dim=training.network.embedding_dim,
        classes=[(part.start, part.stop) for part in classes],
        files=files,
        facts={**facts, **origin.facts()},
    )
    partial.write_manifest(manifest)
    return layout.commit(folder, step)


def _of_rank(shard: Path, training: Training) -> dict[str, Tensor]:
    """What a rank's file of ours holds: rows and their optimizer's state as they are there, BatchNorm's statistics."""
    content, names = tensors_in(shard), parameter_names(training.network)
    rows_cD = _rows(content, shard)
    tensors = {"row.weight": rows_cD.float()}
    if training.course is not None:
        try:
            arcface_torch_optimizer.course_of(content, len(names))
            state = arcface_torch_optimizer.row_state(content, rows_cD)
        except ValueError as error:
            raise ValueError(f"{shard}: {error}; {training.shards[0].name} fits: keep the files of one save") from error
        tensors |= {f"row.row_optimizer.{name}": value for name, value in state.items()}
    own = {key: value for key, value in weights_in(shard).tensors.items() if key in training.backbone}
    return tensors | {f"buffer.{key}": value for key, value in own.items() if key not in names}


def _shards(folder: Path) -> tuple[Path, ...]:
    """The files of all ranks, in order; none where the folder has none."""
    named = ((_SHARD.fullmatch(file.name), file) for file in folder.iterdir())
    by_rank = {int(match[1]): file for match, file in named if match}
    missing = next(rank for rank in count() if rank not in by_rank)
    if missing < len(by_rank):
        raise ValueError(
            f"{folder} lacks checkpoint_gpu_{missing}.pt: there are {len(by_rank)} of ranks 0 to {max(by_rank)}; "
            "bring the files of all machines into one folder"
        )
    return tuple(by_rank[rank] for rank in range(missing))


def _backbone_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in _ALONE:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(
        f"{path} holds no checkpoint_gpu_*.pt, {' or '.join(_ALONE)}: give arcface_torch's config.output, or a file"
    )


def _checked_classes(shards: Sequence[Path], embedding_dim: int) -> int:
    """The number of classes. ValueError where the files are not the shards of one save."""
    contents = [tensors_in(shard) for shard in shards]  # mapped: no row is read
    shapes = [_rows(content, shard).shape for content, shard in zip(contents, shards, strict=True)]
    num_classes, first = sum(rows for rows, _ in shapes), _progress(contents[0])
    for rank, (shard, content, (rows, dim)) in enumerate(zip(shards, contents, shapes, strict=True)):
        due = len(class_range(num_classes, rank, len(shards)))
        if dim != embedding_dim:
            raise ValueError(
                f"{shard} holds class rows of {dim} dimensions; the backbone's embeddings have {embedding_dim}"
            )
        if rows != due:
            raise ValueError(
                f"{shard} holds {rows} class rows, but {num_classes} classes on {len(shards)} ranks make {due} there: "
                "files of runs on different numbers of ranks are mixed; keep those of one run"
            )
        if _progress(content) != first:
            raise ValueError(
                f"{shard} is of {_progress(content)}, {shards[0].name} of {first}: keep the files of one save"
            )
    return num_classes


def _rows(content: Any, file: Path) -> Tensor:
    """The class rows ``(c, D)`` in what was read from ``file``."""
    head = content.get("state_dict_softmax_fc") if isinstance(content, Mapping) else None
    named = head if isinstance(head, Mapping) else {}
    rows = next((value for key, value in named.items() if str(key).split(".")[-1] == "weight"), None)
    if not isinstance(rows, Tensor) or rows.dim() != 2:
        raise ValueError(f"{file} holds no class rows: expected a matrix `weight` in its state_dict_softmax_fc")
    return rows


def _progress(content: Mapping[str, Any]) -> Progress:
    return Progress(int(content.get("epoch", 0)), int(content.get("global_step", 0)))
