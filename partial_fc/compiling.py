"""torch.compile where the machine can: where its compiler fails, that is said once and the plain function runs."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from partial_fc.world import local_rank

Function = Callable[..., Tensor]
_log = logging.getLogger(__name__)


def is_of_compiler(error: Exception) -> bool:
    """Whether torch.compile failed. By the class's name: to import the class takes a second."""
    return any(kind.__name__ == "TorchDynamoException" for kind in type(error).__mro__)


def unless_it_fails(
    compiled: Function, plain: Function, name: str, is_failure: Callable[[Exception], bool] = is_of_compiler
) -> Function:
    """A function that calls ``compiled``, and ``plain`` from the first failure of the compiler on.

    A compiler fails before anything is computed: a missing C compiler, ``Python.h`` or Triton. Any other error is
    raised. ``is_failure`` tells them apart.
    """
    has_failed = False

    @functools.wraps(plain)
    def called(*arguments: Any) -> Tensor:
        nonlocal has_failed
        if not has_failed:
            try:
                return compiled(*arguments)
            except Exception as error:
                if not is_failure(error):
                    raise
                has_failed = True
                if local_rank() == 0:
                    _log.warning("%s runs without being compiled, as this machine cannot: %s", name, reason_of(error))
        return plain(*arguments)

    return called


def is_not_of_device(error: Exception) -> bool:
    """Whether ``error``, of a kernel of Triton's, is none of the device: no Triton, no C compiler, too small a card."""
    return not isinstance(error, (torch.OutOfMemoryError, torch.AcceleratorError))


def reason_of(error: Exception) -> str:
    """The line of a compiler's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if re.search(r"\berror: ", line)), lines[0])


class CompiledOrPlain(nn.Module):
    """``network`` through torch.compile or, where the compiler fails, as it is: the same weights."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._called = unless_it_fails(torch.compile(network), network, "the network")

    def forward(self, images: Tensor) -> Tensor:
        """What ``network`` makes of the images."""
        return self._called(images)
