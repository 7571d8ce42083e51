"""The softmax losses with a fixed scale and, at the target, a margin: NormFace, CosFace, ArcFace."""

from __future__ import annotations

import torch
from torch import Tensor

from partial_fc.functional import margins
from partial_fc.objectives.scaled_softmax import ScaledSoftmax, checked_scale
from partial_fc.slopes import Cosines, Slopes


class CosineSoftmax(ScaledSoftmax):
    """Softmax of ``scale`` times the cosine: NormFace, Wang et al., 1704.06369. One sweep before the gradient's."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = checked_scale(scale)

    def forward(self, cosines: Cosines) -> Slopes:
        """See :class:`Objective`."""
        scale = cosines.own_target_N.new_full((), self.scale)
        log_negatives_N = self.log_negatives(cosines, scale)
        return self.slopes(scale, log_negatives_N, *self._target(cosines.target_N))

    def _target(self, cos_N: Tensor) -> tuple[Tensor, Tensor]:
        return cos_N, torch.ones_like(cos_N)


class CosFace(CosineSoftmax):
    """The target's cosine less ``margin``: Wang et al., 1801.09414, eq. 4."""

    def __init__(self, scale: float = 64.0, margin: float = 0.4) -> None:
        super().__init__(scale)
        self.margin = _checked_margin(margin, 1.0)

    def _target(self, cos_N: Tensor) -> tuple[Tensor, Tensor]:
        return margins.cosface_target(cos_N, self.margin)


class ArcFace(CosineSoftmax):
    """The target's angle plus ``margin`` radians: Deng et al., 1801.07698, eq. 3, with its true derivative.

    ``straight_through=True`` gives the gradient of the widespread PyTorch port instead, which leaves out
    ``sin(θ+m)/sin θ``: for parity with runs made by it.
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.5, straight_through: bool = False) -> None:
        super().__init__(scale)
        self.margin = _checked_margin(margin, torch.pi / 2)
        self.straight_through = straight_through

    def _target(self, cos_N: Tensor) -> tuple[Tensor, Tensor]:
        return margins.arcface_target(cos_N, self.margin, straight_through=self.straight_through)


def _checked_margin(margin: float, end: float) -> float:
    if not 0.0 <= margin < end:
        raise ValueError(f"margin={margin}: expected 0 <= margin < {end:.4g}")
    return float(margin)
