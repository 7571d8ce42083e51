"""The optimizers of NVIDIA's apex, with the options that this trainer gives torch's own of the same rule.

None of them leaves out a step that only the GPU knows to be bad: `partial_fc.divergence` waits for each loss instead.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from launch.config.run import OptimizerConfig

Groups = list[dict[str, Any]]


def apex_sgd(section: OptimizerConfig, groups: Groups) -> torch.optim.Optimizer:
    """``FusedSGD``: torch's SGD with momentum; where the momentum is 0 it keeps a buffer of zeros all the same."""
    from apex.optimizers import FusedSGD

    nesterov = section.momentum > 0 and section.nesterov
    made: torch.optim.Optimizer = FusedSGD(
        groups, lr=section.learning_rate, momentum=section.momentum, nesterov=nesterov
    )
    return made


def apex_adamw(section: OptimizerConfig, groups: Groups) -> torch.optim.Optimizer:
    """``FusedAdam`` in its mode of AdamW: torch's AdamW."""
    from apex.optimizers import FusedAdam

    betas = (section.momentum, 0.999)
    return _counting(FusedAdam(groups, lr=section.learning_rate, betas=betas, adam_w_mode=True))


def apex_lamb(section: OptimizerConfig, groups: Groups) -> torch.optim.Optimizer:
    """``FusedLAMB``, 1904.00962: AdamW whose step has the length of the weight for each tensor that decays.

    Its own limit of the gradient's norm is lifted: that is ``optimizer.clip_norm``'s alone.
    """
    from apex.optimizers import FusedLAMB

    betas = (section.momentum, 0.999)
    return _counting(FusedLAMB(groups, lr=section.learning_rate, betas=betas, max_grad_norm=math.inf))


class Larc(torch.optim.Optimizer):
    """``LARC`` around ``inner``, 1708.03888: no tensor's rate is above ``trust`` · its norm / its gradient's norm.

    Groups and state are those of ``inner``, which must not be fused: a bad step would pass it by (see above).
    """

    def __init__(self, inner: torch.optim.Optimizer, trust: float) -> None:  # no super: it would copy the groups
        from apex.parallel.LARC import LARC

        self._inner, self._larc = inner, LARC(inner, trust_coefficient=trust)
        self.defaults, self.state, self.param_groups = inner.defaults, inner.state, inner.param_groups

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Shorten the gradients, then take the step of ``inner``. Waits for the device several times a tensor."""
        self._larc.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        self._inner.zero_grad()


def _counting(made: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """``made``, whose groups count their steps from 0: `TrainingState` sees by it where they are counted."""
    for group in made.param_groups:
        group["step"] = 0
    return made
