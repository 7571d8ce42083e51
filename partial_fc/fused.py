"""Elementwise work as one kernel on a GPU.

On a GPU every operation reads and writes the whole block in the device's memory; torch.compile makes one pass of a
chain of them. On a CPU a block stays in the cache and the chain is as good. The function itself is the readable twin
of what is compiled from it (``tests/partial_fc/test_fused.py``).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from partial_fc.compiling import unless_it_fails

Function = TypeVar("Function", bound=Callable[..., Tensor])


def fused_on_gpus(function: Function) -> Function:
    """``function``, compiled where its first argument is on a GPU. Sizes may change from call to call."""

    @functools.wraps(function)
    def called(first: Tensor, *others: Any) -> Tensor:
        return (compiler.get()(function) if first.is_cuda else function)(first, *others)

    return cast(Function, called)


@functools.cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``function`` through torch.compile. A size that changes, as the last block's width, is left open from then on.

    The others stay numbers: with D known, a row that is read twice is kept in registers in between. Where the compiler
    fails, as on a GPU's machine without a C compiler, ``function`` itself.
    """
    # Unwrapped: the tests' checks of shapes wrap each function, and a compiler cannot see through the wrapper.
    fused = torch.compile(inspect.unwrap(function))
    return unless_it_fails(fused, function, function.__name__)


compiler: ContextVar[Callable[[Callable[..., Tensor]], Callable[..., Tensor]]] = ContextVar(
    "compiler", default=compiled
)
"""What makes one kernel of a function. A plan puts a counter in its place and compiles nothing."""
