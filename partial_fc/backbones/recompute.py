"""A block whose activations are computed again in the backward pass instead of kept.

``torch.utils.checkpoint`` alone is not enough for a network with BatchNorm: the second forward pass would move the
running statistics a second time, so that a network trained with recomputation would be evaluated with other
statistics than the same network trained without (momentum 0.19 in place of 0.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """``block(x)``, of which only ``x`` is kept for the backward pass; the rest is computed a second time there.

    The output, the gradients and the BatchNorm statistics are those of ``block(x)``; dropout draws the same mask
    twice. Costs one more forward pass of the block, about a third of its training time.
    """
    if torch.compiler.is_compiling():  # there the statistics are an output of the first pass, never of the second,
        return checkpoint(block, x, use_reentrant=False)  # type: ignore[no-any-return]  # and context_fn is refused
    return checkpoint(  # type: ignore[no-any-return]
        block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_at_rest(block))
    )


@contextmanager
def _statistics_at_rest(block: nn.Module) -> Iterator[None]:
    # Not track_running_stats = False, which would be simpler: autograd would then save two tensors fewer than in
    # the first pass, and checkpoint refuses that.
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    states = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, momentum, num_batches_tracked in states:
            norm.momentum = momentum
            norm.num_batches_tracked = num_batches_tracked
