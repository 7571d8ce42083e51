"""What an objective is asked with, and what it answers: cosines in, slopes out.

Legend: ``N`` rows of the global batch, ``b`` classes of one block. *Own* is what this rank's classes contribute; the
sum over the ranks is the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from partial_fc.functional import adacos
from partial_fc.rules import Rule


class Near(NamedTuple):
    """Of each row's other classes above a cosine: the sum of their squared excesses over it, and their number."""

    squares_N: Float[Tensor, " N"]
    number_N: Float[Tensor, " N"]


@dataclass
class Cosines:
    """One step's cosines, as far as an objective may ask for them; every answer is the same on every rank.

    ``num_negatives``: how many classes the sums run over; less than ``num_classes - 1`` when classes are sampled.
    """

    num_classes: int
    num_negatives: int | Tensor
    embedding_dim: int
    own_target_N: Float[Tensor, " N"]
    all_sum: Callable[[Tensor], Tensor]
    own_sum_over_negatives: Callable[[Rule], Tensor]
    own_squares: Callable[[], Tensor]
    own_near: Callable[[float], Near]
    _target_N: Tensor | None = field(default=None, init=False)

    @property
    def target_N(self) -> Float[Tensor, " N"]:
        """``c_iy`` of the global batch. One all-reduce of N floats, unless a sum was asked for first: it brings it."""
        if self._target_N is None:
            self._target_N = self.all_sum(self.own_target_N)
        return self._target_N

    def sum_over_negatives(self, term: Rule) -> Float[Tensor, " N"]:
        """``(N,)``: the sum of ``term(cos_Nb)`` over all classes but the targets.

        One sweep of products and one all-reduce of N floats; of 2·N where it brings the targets with it.
        """
        return self._sum_with_targets(self.own_sum_over_negatives(term))

    def squares_over_negatives(self) -> Float[Tensor, " N"]:
        """``sum_over_negatives(torch.square)``, which a Gram matrix gives without a single cosine."""
        return self._sum_with_targets(self.own_squares())

    def near_negatives(self, above: float) -> Near:
        """The other classes with cosines above ``above``. One sweep of products, one all-reduce of at most 3·N floats.

        Under class sampling each drawn class counts 1/rate times and the batch's own once: right on average.
        """
        return Near(*self._sum_with_targets(torch.stack(self.own_near(above))))

    @cached_property
    def median_target_angle(self) -> Float[Tensor, ""]:
        """The global batch's median angle between embedding and class row, in radians."""
        return adacos.median_angle(self.target_N)

    @cached_property
    def inverse_sample_rate(self) -> Float[Tensor, ""]:
        """By how much a sum over the sampled negatives falls short of the sum over all. float64."""
        one = torch.ones((), dtype=torch.float64, device=self.own_target_N.device)
        return (self.num_classes - 1) / (one * self.num_negatives).clamp(min=1.0)

    def _sum_with_targets(self, own: Tensor) -> Tensor:
        """``(N,)`` or ``(k, N)``: the sum over the ranks; the first one fetches ``target_N`` in the same all-reduce."""
        if self._target_N is not None:
            return self.all_sum(own)
        rows = own.view(-1, len(self.own_target_N))
        summed = self.all_sum(torch.cat([rows, self.own_target_N[None]]))
        self._target_N = summed[-1]
        return summed[:-1].view_as(own)


@dataclass(frozen=True)
class Slopes:
    """The loss of each row ``(N,)``, the slope at its target ``(N,)``, and the rule for all other slopes of a block.

    ``steepest``, ``()``, is what a slope at a target is measured by: a softmax's scale, P2SGrad's slope scale.
    ``linear_weight`` is ``w`` where that rule is ``w · cos_Nb``, else None. ``near_above``: the slopes of cosines up to
    it are 0, and a row without any slope is not moved; None where all rows are.
    """

    loss_N: Float[Tensor, " N"]
    target_N: Float[Tensor, " N"]
    negatives: Rule
    steepest: Float[Tensor, ""]
    figures: dict[str, Tensor] = field(default_factory=dict)
    linear_weight: Float[Tensor, ""] | None = None
    near_above: float | None = None
