"""An imported training of arcface_torch goes on as a run of ours.

**The backbone** is stepped as there: its optimizer's state is taken over bitwise.

**The class rows** are not of unit length there: a row ``w = r ŵ`` of length ``r`` has the cosines of its direction
``ŵ``. ``G`` is the gradient by ``ŵ`` of the loss's sum over the ``N`` images of a batch, tangent to the sphere. Then::

    there    g = G / (r N)    v ← μ v + g    w ← w - η v        so    ŵ ← ŵ - (η / r) v, to first order in the step
    here                      u ← μ u + G                             ŵ ← ŵ - η' u, and back to unit length

- **Directions** are taken over exactly, but for one rounding. Lengths have no meaning here and are dropped.
- **Momentum on its way** is ``u = (η / η') v / r``: in the steps to come it moves every direction as far as it would
  have there, ``(η / r) (μ + μ² + ...) v``, whatever ``η'`` is and however lengths differ. The part of ``v`` along ``w``
  comes along; it changes lengths alone, which a row of ours is relieved of in each step.
- **New gradients** move a direction by ``η / (r² N)`` there, which differs from row to row and changes with ``r``. Here
  all rows have one rate: ``η' = η / (r̄² N)`` of the median length ``r̄`` is theirs for the row in the middle
  (:func:`equal_row_rate`), and a row of length ``r`` learns ``r² / r̄²`` times as fast as there. Where all lengths are
  equal, stay so and are not decayed, both trainings are equal but for rounding.
- **AdamW** divides by the gradient's size, which is ``r N`` times as large here: ``m' = r N m``, ``v' = (r N)² v``, the
  number of updates as it is. A step is ``η / r`` long there, hence ``η' = η / r̄``.
- **Weight decay** there shortens rows, so that their directions step farther later on. Here they keep their pace.

``tests/partial_fc/checkpoint/test_taking_up.py`` compares the losses of trainings that went on there and here.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from partial_fc.checkpoint.arcface_torch import Origin
from partial_fc.checkpoint.arcface_torch_optimizer import Course
from partial_fc.checkpoint.layout import CheckpointFolder, Manifest
from partial_fc.checkpoint.loading import load_backbone, load_head, refuse_damage, tensors_of
from partial_fc.checkpoint.training_state import TrainingState
from partial_fc.classifier import ShardedClassifier
from partial_fc.rows.optimizers import RowAdamW, RowSGD

_LEAST_LENGTH = 1e-12
_BLOCK = 4096  # rows


def take_up(folder: Path, state: TrainingState, origin: Origin, *, seed: int, batch_size: int) -> Manifest:
    """Take up an imported checkpoint on this rank and return its manifest; the run goes on from ``manifest.step``.

    The optimizers of ``state`` have their largest rates, as they do before the first step; ``batch_size`` is of all
    ranks. Whatever theirs does not hold stays new: the objective's state, generators, the state of another optimizer,
    class rows where only a backbone was imported. On as many ranks BatchNorm goes on from each rank's own statistics,
    on another number from those of their rank 0. ValueError for a damaged file and for other sizes. No collective.
    """
    checkpoint, head, world = CheckpointFolder(folder), state.head, state.world
    manifest = checkpoint.manifest()
    refuse_damage(checkpoint, manifest, [checkpoint.backbone, checkpoint.shared], "import it again")
    load_backbone(folder, state.backbone)
    if origin.course is not None and origin.course.optimizer == optimizer_name(state.optimizer):
        objective = {f"objective.{name}": buffer for name, buffer in head.objective.named_buffers()}
        state.load_shared(objective | tensors_of(checkpoint.shared))
    if manifest.classes:
        load_head(folder, head)
        to_unit_rows_(head, origin.course.row_rate if origin.course else 0.0, batch_size)
        head.steps = manifest.head_steps
    torch.manual_seed(seed + 1_000_003 * manifest.step + world.rank)
    if world.size == manifest.world_size:
        _load_buffers(checkpoint.rank(world.rank, world.size), state.backbone)
    return manifest


@torch.no_grad()
def to_unit_rows_(head: ShardedClassifier, their_rate: float, batch_size: int) -> None:
    """Bring rows of any length to unit length, and the state of their optimizer to the scale of its steps, in place."""
    optimizer, rate = head.row_optimizer, 0.0 if head.row_optimizer is None else head.row_optimizer.learning_rate
    for first in range(0, len(head.weight), _BLOCK):
        block = slice(first, first + _BLOCK)
        rows_bD = head.weight[block].float() if head.weight.dtype == torch.bfloat16 else head.weight[block].clone()
        length_b1 = rows_bD.norm(dim=1, keepdim=True).clamp_min(_LEAST_LENGTH)
        head.weight[block] = rows_bD / length_b1
        if isinstance(optimizer, RowSGD) and optimizer.momentum_cD is not None:
            factor_b1 = (their_rate / rate if rate else 0.0) / length_b1
            optimizer.momentum_cD[block] = factor_b1 * optimizer.momentum_cD[block]
        if isinstance(optimizer, RowAdamW):
            assert optimizer.first_moment_cD is not None
            assert optimizer.second_moment_cD is not None
            factor_b1 = batch_size * length_b1
            optimizer.first_moment_cD[block] = factor_b1 * optimizer.first_moment_cD[block]
            optimizer.second_moment_cD[block] = factor_b1.square() * optimizer.second_moment_cD[block]


def equal_row_rate(course: Course, row_length: float, batch_size: int) -> float:
    """The largest learning rate with which a row of the median length goes on as fast as it did there."""
    if course.optimizer == "adamw":
        return course.row_rate / row_length
    return course.row_rate / (batch_size * row_length**2)


def optimizer_name(optimizer: torch.optim.Optimizer) -> str:
    """``sgd``, ``adamw`` or apex's ``lamb``."""
    first = optimizer.param_groups[0]
    return "lamb" if "grad_averaging" in first else "adamw" if "betas" in first else "sgd"


@torch.no_grad()
def _load_buffers(file: Path, backbone: nn.Module) -> None:
    saved = tensors_of(file, ("buffer.",))
    for name, buffer in backbone.named_buffers():
        if f"buffer.{name}" in saved:
            buffer.copy_(saved[f"buffer.{name}"])
