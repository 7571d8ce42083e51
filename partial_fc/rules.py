"""Rules: what becomes of each cosine of a block by itself, and one kernel of a GPU for all that is done with it.

A GPU's step is bound by the bytes it moves: a matrix of cosines that is widened, changed, masked and summed up step by
step is read and written five times. Here a product is read once. On a CPU a block stays in the cache, and the slow
twins in ``sweeps/sweep.py`` are as fast; ``tests/partial_fc/test_rules.py`` holds the two against each other.

Legend: ``N`` rows of the global batch; ``b`` classes of one block.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from partial_fc.fused import fused_on_gpus


class Rule(NamedTuple):
    """``function(cos_Nb, *arguments)``, elementwise; it may overwrite the cosines, and gives the matrix it made.

    ``function`` is one of a module, not made anew in each step: it is compiled once.
    """

    function: Callable[..., Tensor]
    arguments: tuple[Tensor, ...] = ()

    def __call__(self, cos_Nb: Float[Tensor, "N b"]) -> Float[Tensor, "N b"]:
        """What the rule makes of the cosines, which are overwritten."""
        return self.function(cos_Nb, *self.arguments)

    def weighted(self, weights_b: Float[Tensor, " b"]) -> Rule:
        """The rule times a number for each class."""
        return Rule(_weighted(self.function), (weights_b, *self.arguments))


def sum_over_others(
    rule: Rule,
    product_Nb: Float[Tensor, "N b"],
    places_N: Int[Tensor, " N"],
    takes_part_b: Bool[Tensor, " b"] | None,
    dtype: torch.dtype,
) -> Float[Tensor, " N"]:
    """``(N,)``: of what the rule makes of the cosines in ``dtype`` the sum over the classes but the targets.

    ``places_N`` is where each row's target lies, a column that the block does not have for elsewhere; of the classes
    those count that take part, None for all. ``product_Nb`` stays as it is.
    """
    return _sum(rule.function, dtype)(product_Nb, places_N, takes_part_b, *rule.arguments)


def with_targets(
    rule: Rule,
    product_Nb: Float[Tensor, "N b"],
    places_N: Int[Tensor, " N"],
    target_N: Float[Tensor, " N"],
    dtype: torch.dtype,
) -> Float[Tensor, "N b"]:
    """What the rule makes of the cosines in ``dtype``, and ``target_N`` at the targets, rounded to the product's dtype.

    ``places_N`` as above; ``product_Nb`` stays as it is.
    """
    return _placed(rule.function, dtype)(product_Nb, places_N, target_N, *rule.arguments)


@fused_on_gpus
def near_others(
    product_Nb: Float[Tensor, "N b"],
    places_N: Int[Tensor, " N"],
    weights_b: Float[Tensor, " b"],
    threshold: Float[Tensor, ""],
) -> Float[Tensor, "2 N"]:
    """``(2, N)``: of the cosines above ``threshold`` but the targets' the squared excesses, and their number.

    Summed over the classes, each times its weight.
    """
    excesses_Nb = (product_Nb.to(weights_b.dtype) - threshold).clamp_(min=0.0)
    excesses_Nb.masked_fill_(_are_targets(product_Nb, places_N), 0.0)
    number_N = (excesses_Nb.sign() * weights_b).sum(dim=1)
    return torch.stack([excesses_Nb.square_().mul_(weights_b).sum(dim=1), number_N])


@functools.cache
def _weighted(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    rule = inspect.unwrap(function)

    def weighted(cos_Nb: Tensor, weights_b: Tensor, *arguments: Tensor) -> Tensor:
        values_Nb: Tensor = rule(cos_Nb, *arguments)
        return values_Nb.mul_(weights_b)

    return weighted


@functools.cache
def _sum(function: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., Tensor]:
    rule = inspect.unwrap(function)

    def summed(product_Nb: Tensor, places_N: Tensor, takes_part_b: Tensor | None, *arguments: Tensor) -> Tensor:
        values_Nb = torch.where(_are_targets(product_Nb, places_N), 0.0, _applied(rule, product_Nb, dtype, *arguments))
        return (values_Nb if takes_part_b is None else torch.where(takes_part_b, values_Nb, 0.0)).sum(dim=1)

    return fused_on_gpus(_with_code_of_its_own(summed))


@functools.cache
def _placed(function: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., Tensor]:
    rule = inspect.unwrap(function)

    def placed(product_Nb: Tensor, places_N: Tensor, target_N: Tensor, *arguments: Tensor) -> Tensor:
        values_Nb = _applied(rule, product_Nb, dtype, *arguments)
        return torch.where(_are_targets(product_Nb, places_N), target_N.unsqueeze(1), values_Nb).to(product_Nb.dtype)

    return fused_on_gpus(_with_code_of_its_own(placed))


def _applied(rule: Callable[..., Tensor], product_Nb: Tensor, dtype: torch.dtype, *arguments: Tensor) -> Tensor:
    return rule(product_Nb.to(dtype, copy=True), *arguments)


def _are_targets(product_Nb: Tensor, places_N: Tensor) -> Tensor:
    return torch.arange(product_Nb.shape[1], device=product_Nb.device) == places_N.unsqueeze(1)


def _with_code_of_its_own(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """So that the compiler's limit of variants, which it counts by code, is each rule's own and not shared by all."""
    made = cast(FunctionType, function)
    made.__code__ = made.__code__.replace()
    return function
