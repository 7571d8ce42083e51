"""Seconds of a training step on any number of ranks, at given rates.

An operation is an addition or a multiplication. Times are a roofline taken one after the other: no launch of a kernel,
no waiting for data, no straggler; every operator that is no product, or on GPUs every fused chain of them in the
classifier, reads and writes memory on its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from partial_fc.planning.backbone_cost import BackboneCost
from partial_fc.planning.collectives import Collective, backbone_collectives
from partial_fc.planning.head_cost import HeadCost
from partial_fc.planning.rates import Rates

_BACKWARD_SHARE = 2 / 3  # of the time of a network or a head, behind which its gradient's collective hides
_OPTIMIZER_BYTES = 64  # a parameter: norm, clipping, decay, momentum, step


@dataclass(frozen=True)
class StepTime:
    """Seconds of a training step. Communication is what is left of it after what it is hidden behind."""

    backbone: float
    head: float
    communication: float

    @property
    def total(self) -> float:
        """One after the other."""
        return self.backbone + self.head + self.communication


def mean_time(shares: Sequence[tuple[float, StepTime]]) -> StepTime:
    """The mean over steps of which each share, of 1, takes a time of its own."""
    return StepTime(
        sum(share * time.backbone for share, time in shares),
        sum(share * time.head for share, time in shares),
        sum(share * time.communication for share, time in shares),
    )


def step_time(
    head: HeadCost,
    num_classes: int,
    backbone: BackboneCost,
    backbone_products: str,
    batch: int,
    ranks: int,
    rates: Rates,
) -> StepTime:
    """The seconds of a step of ``batch`` images on ``ranks``, by the rank that has most to do."""
    images, step = -(-batch // ranks), head.step(num_classes, batch, ranks)
    network_seconds = (
        backbone.operations(images) / rates.operations(backbone_products)
        + (backbone.traffic_bytes(images) + _OPTIMIZER_BYTES * backbone.parameters) / rates.memory_bytes
    )
    head_seconds = step.operations / rates.operations(head.spec.products) + step.traffic_bytes / rates.memory_bytes
    waited = 0.0
    if ranks > 1:
        for collectives, computing in (
            (step.collectives, head_seconds),
            (backbone_collectives(backbone.parameters), network_seconds),
        ):
            waited += _waited_seconds(collectives, _BACKWARD_SHARE * computing, ranks, rates)
    return StepTime(network_seconds, head_seconds, waited)


def _waited_seconds(collectives: Iterable[Collective], backward_seconds: float, ranks: int, rates: Rates) -> float:
    """What a rank waits: for what nothing hides, and for what of the others is left when ``backward_seconds`` end."""
    seconds = [(one.seconds(ranks, rates), one.is_hidden) for one in collectives]
    hidden = sum(one for one, is_hidden in seconds if is_hidden)
    return sum(one for one, is_hidden in seconds if not is_hidden) + max(0.0, hidden - backward_seconds)
