"""What a run leaves on disk: the backbone as one plain state dict, the head as one file per rank that wrote it.

::

    checkpoints/step-00001234/
        backbone.pt               state dict with arcface_torch's keys: loads there, and its weights load here
        head-00000-of-00002.pt    class ids of this part, rows, row optimizer, objective
        manifest.json             written last, by rank 0

A folder appears under its name only when it is whole: it is written under another name and renamed. Parts are read
by class id, so a head saved by any number of ranks loads on any other. Files are read with ``weights_only=True``.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor, nn

from partial_fc.checkpoint.networks import misfit
from partial_fc.checkpoint.saving import head_file
from partial_fc.checkpoint.state_dicts import behind_prefix, tensors_in, weights_in
from partial_fc.classifier import ShardedClassifier
from partial_fc.rows.optimizers import RowAdamW, RowSGD

_ROW_KEYS = ("weight", *(f"row_optimizer.{name}" for kind in (RowSGD, RowAdamW) for name in kind.state_names))


def latest_checkpoint(folder: Path) -> Path:
    """The whole checkpoint of the highest step in ``folder``. FileNotFoundError when there is none."""
    whole = sorted(path.parent for path in folder.glob("step-*/manifest.json") if path.parent.suffix != ".partial")
    if not whole:
        raise FileNotFoundError(f"no checkpoint in {folder}: expected a folder step-N with a manifest.json")
    return whole[-1]


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


def load_head(folder: Path, head: ShardedClassifier) -> None:
    """Load this rank's classes from a checkpoint written by any number of ranks.

    Row state that only one of the two heads has is left out, or left at zero. ValueError when C, D or the objective's
    state differ, or when a file is damaged.
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    saved = manifest["num_classes"], manifest["embedding_dim"]
    if saved != (head.num_classes, head.embedding_dim):
        raise ValueError(
            f"{folder} holds a head of {saved[0]} classes x {saved[1]} dimensions: "
            f"expected {head.num_classes} x {head.embedding_dim}"
        )
    state = head.state_dict()
    rows = {key: state[key] for key in _ROW_KEYS if key in state}
    for part in range(manifest["head_parts"]):
        saved_part = tensors_in(head_file(folder, part, manifest["head_parts"]))
        _copy_rows(range(*saved_part["classes"]), saved_part["state"], head.shard, rows)
        if part == 0:
            state.update({key: value for key, value in saved_part["state"].items() if key not in _ROW_KEYS})
    try:
        head.load_state_dict({**state, **rows})
    except RuntimeError as error:
        raise ValueError(f"the head in {folder} was trained with another objective: {error}") from error


def _copy_rows(saved: range, source: dict[str, Tensor], wanted: range, target: dict[str, Tensor]) -> None:
    start, stop = max(saved.start, wanted.start), min(saved.stop, wanted.stop)
    if start >= stop:
        return
    for key in target.keys() & source.keys():
        target[key][start - wanted.start : stop - wanted.start] = source[key][start - saved.start : stop - saved.start]
