"""A small problem, its solution by the whole matrix, and its solution by ranks: what the tests of the losses compare.

Legend: ``N`` rows of the global batch, ``n`` a rank's; ``C`` classes; ``D`` dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from simulation import on_ranks
from torch import Tensor

from partial_fc import (
    AdaCos,
    ArcFace,
    CombinedMargin,
    CosFace,
    CosineSoftmax,
    Objective,
    P2SGrad,
    ShardedClassifier,
    World,
)
from partial_fc.functional import reference
from partial_fc.objectives.p2sgrad import PULLS

Losses = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]


class Problem(NamedTuple):
    """Class rows of any length and a few steps' batches, in float64."""

    rows_CD: Tensor
    batches: list[tuple[Tensor, Tensor]]


class Solution(NamedTuple):
    """One step: the loss, and its gradients by all embeddings and by all class rows."""

    loss: Tensor
    grad_embeddings_ND: Tensor
    grad_rows_CD: Tensor


@dataclass(frozen=True)
class Case:
    """An objective, and the losses of successive steps by the oracle, from (N, C) cosines."""

    make: Callable[[], Objective]
    losses: Losses


def problem(num_classes: int, dim: int, sizes: Sequence[int] = (9,), *, near: float = 0.0) -> Problem:
    """Random rows and batches; ``near`` moves each embedding towards its class."""
    rows_CD = torch.randn(num_classes, dim, dtype=torch.float64) * (0.5 + torch.rand(num_classes, 1)).double()
    batches = []
    for size in sizes:
        labels_N = torch.randint(num_classes, (size,))
        noise_ND = torch.randn(size, dim, dtype=torch.float64)
        batches.append((3.0 * (noise_ND + near * rows_CD[labels_N]), labels_N))
    return Problem(rows_CD, batches)


def by_whole_matrix(case: Case, given: Problem, dtype: torch.dtype = torch.float64) -> list[Solution]:
    """Each step by autograd through the (N, C) matrix, all of it in ``dtype``."""
    solutions = []
    leaves = [
        (embeddings_ND.to(dtype).requires_grad_(), given.rows_CD.to(dtype).requires_grad_())
        for embeddings_ND, _ in given.batches
    ]
    losses = case.losses([reference.cosines(*leaf) for leaf in leaves], [labels_N for _, labels_N in given.batches])
    for loss, (embeddings_ND, rows_CD) in zip(losses, leaves, strict=True):
        grad_embeddings_ND, grad_rows_CD = torch.autograd.grad(loss, (embeddings_ND, rows_CD))
        solutions.append(Solution(loss.detach(), grad_embeddings_ND, grad_rows_CD))
    return solutions


def by_ranks(
    case: Case,
    given: Problem,
    size: int,
    *,
    block_classes: int | None = None,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> list[Solution]:
    """Each step by ``size`` ranks with uneven parts of the batch (some empty); the loss is one number on all ranks.

    ``options`` are the classifier's own.
    """
    num_classes, dim = given.rows_CD.shape
    counts = [uneven(len(labels_N), size) for _, labels_N in given.batches]

    def work(world: World) -> list[Solution]:
        head = ShardedClassifier(num_classes, dim, case.make(), world=world, block_classes=block_classes, **options).to(
            dtype
        )
        head.weight.data = given.rows_CD[head.shard.start : head.shard.stop].to(dtype)
        solutions = []
        for (embeddings_ND, labels_N), parts in zip(given.batches, counts, strict=True):
            embeddings_nD = torch.split(embeddings_ND, parts)[world.rank].to(dtype).clone().requires_grad_()
            loss = head(embeddings_nD, torch.split(labels_N, parts)[world.rank])
            solutions.append(Solution(loss.detach(), *torch.autograd.grad(loss, (embeddings_nD, head.weight))))
        return solutions

    steps = zip(*on_ranks(size, work), strict=True)
    return [gathered(list(step)) for step in steps]


def gathered(parts: list[Solution]) -> Solution:
    """The ranks' parts of one step put together; their losses must be bitwise equal."""
    assert all(torch.equal(part.loss, parts[0].loss) for part in parts), "ranks disagree about the loss"
    return Solution(
        parts[0].loss,
        torch.cat([part.grad_embeddings_ND for part in parts]),
        torch.cat([p.grad_rows_CD for p in parts]),
    )


def trained(head: ShardedClassifier, batches: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """The losses of a rank's batches, each with its backward pass, which moves the rows."""
    losses = []
    for embeddings_nD, labels_n in batches:
        loss = head(embeddings_nD.clone().requires_grad_(), labels_n)
        loss.backward()
        losses.append(loss.detach())
    return losses


def uneven(total: int, size: int) -> list[int]:
    """``total`` rows dealt to ``size`` ranks by chance: uneven, and with empty ranks."""
    return torch.bincount(torch.randint(size, (total,)), minlength=size).tolist()


def error(found: Tensor, truth: Tensor) -> float:
    """``|found - truth| / |truth|``, of the whole tensor."""
    return float((found.double() - truth).norm() / truth.norm())


def cases(num_classes: int, dim: int) -> dict[str, Case]:
    """Every loss in every variant beside its oracle. P2SGrad's own loop formula is in functional/test_p2sgrad.py."""
    fixed = math.sqrt(2.0) * math.log(num_classes - 1)
    balanced = 0.1 * dim / num_classes
    return {
        "cosine_softmax": Case(
            lambda: CosineSoftmax(16.0), _each(lambda cos, y: reference.cosine_softmax(cos, y, 16.0))
        ),
        "cosface": Case(lambda: CosFace(64.0, 0.35), _each(lambda cos, y: reference.cosface(cos, y, 64.0, 0.35))),
        "arcface": Case(lambda: ArcFace(64.0, 0.5), _each(lambda cos, y: reference.arcface(cos, y, 64.0, 0.5))),
        "arcface_straight_through": Case(
            lambda: ArcFace(64.0, 0.5, straight_through=True),
            _each(lambda cos, y: reference.arcface(cos, y, 64.0, 0.5, straight_through=True)),
        ),
        "combined_margin": Case(
            lambda: CombinedMargin(32.0, 1.2, 0.2, 0.1),
            _each(lambda cos, y: reference.combined_margin(cos, y, 32.0, (1.2, 0.2, 0.1), None)),
        ),
        "combined_margin_filtered": Case(
            lambda: CombinedMargin(12.0, 1.0, 0.3, 0.1, filter_above=0.3),
            _each(lambda cos, y: reference.combined_margin(cos, y, 12.0, (1.0, 0.3, 0.1), 0.3)),
        ),
        "adacos_fixed": Case(
            lambda: AdaCos(num_classes, dynamic=False),
            _each(lambda cos, y: reference.cosine_softmax(cos, y, fixed)),
        ),
        "adacos_current": Case(lambda: AdaCos(num_classes), _adacos(fixed, lag=0)),
        "adacos_previous": Case(lambda: AdaCos(num_classes, statistics="previous"), _adacos(fixed, lag=1)),
        "p2sgrad_balanced": Case(P2SGrad, _each(lambda cos, y: reference.p2sgrad(cos, y, balanced, fixed))),
        "p2sgrad_as_printed": Case(
            lambda: P2SGrad(1.0, slope_scale=1.0), _each(lambda cos, y: reference.p2sgrad(cos, y, 1.0, 1.0))
        ),
        **{f"p2sgrad_beyond_chance_{pull}": _beyond_chance(num_classes, dim, fixed, pull) for pull in PULLS},
    }


def _each(loss: Callable[[Tensor, Tensor], Tensor]) -> Losses:
    return lambda cosines, labels: [loss(cos_NC, labels_N) for cos_NC, labels_N in zip(cosines, labels, strict=True)]


def _beyond_chance(num_classes: int, dim: int, slope_scale: float, pull: str) -> Case:
    """At half of τ: in so few dimensions hardly a class lies beyond the whole."""
    chance = 0.5 * math.sqrt(2.0 * math.log(num_classes - 1) / dim)
    return Case(
        lambda: P2SGrad(negatives="beyond_chance", pull=pull, chance_multiple=0.5),
        _each(lambda cos, y: reference.p2sgrad_beyond_chance(cos, y, chance, slope_scale, pull)),
    )


def _adacos(first_scale: float, lag: int) -> Losses:
    """The paper's recurrence; with ``lag`` a step's scale comes from the batch before."""

    def losses(cosines: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Tensor]:
        scale, found = first_scale, []
        for step, (cos_NC, labels_N) in enumerate(zip(cosines, labels, strict=True)):
            if step > 0:
                cos_seen_NC, labels_seen_N = cosines[step - lag].detach(), labels[step - lag]
                scale = reference.adacos_scale(cos_seen_NC, labels_seen_N, scale)
            found.append(reference.cosine_softmax(cos_NC, labels_N, scale))
        return found

    return losses
