"""The three margins of the ArcFace paper together, with arcface_torch's filter of near other classes."""

from __future__ import annotations

import math

from partial_fc.functional import margins
from partial_fc.objectives.scaled_softmax import ScaledSoftmax, checked_scale
from partial_fc.slopes import Cosines, Slopes


class CombinedMargin(ScaledSoftmax):
    """``cos(m1·θ + m2) - m3`` at the target: Deng et al., ArcFace, 1801.07698, eq. 4, with its true derivative.

    ``m1`` is SphereFace's factor, ``m2`` ArcFace's angle in radians, ``m3`` CosFace's margin. ``filter_above``: another
    class whose cosine is above it, as wrong labels make them, counts with the cosine 0 in the softmax and has no slope
    (arcface_torch's ``interclass_filtering_threshold``). One sweep before the gradient's.
    """

    def __init__(
        self,
        scale: float = 64.0,
        m1: float = 1.0,
        m2: float = 0.0,
        m3: float = 0.4,
        filter_above: float | None = None,
    ) -> None:
        super().__init__()
        self.scale = checked_scale(scale)
        if not (1.0 <= m1 <= 2.0 and 0.0 <= m2 < math.pi / 2 and 0.0 <= m3 < 1.0):
            raise ValueError(f"m1={m1}, m2={m2}, m3={m3}: expected 1 <= m1 <= 2, 0 <= m2 < 1.571, 0 <= m3 < 1")
        if filter_above is not None and not 0.0 <= filter_above < 1.0:
            raise ValueError(f"filter_above={filter_above}: expected a cosine, 0 <= filter_above < 1, or None")
        self.m1, self.m2, self.m3, self.filter_above = m1, m2, m3, filter_above

    def forward(self, cosines: Cosines) -> Slopes:
        """See :class:`Objective`."""
        scale = cosines.own_target_N.new_full((), self.scale)
        log_negatives_N = self.log_negatives(cosines, scale)
        target = margins.combined_target(cosines.target_N, self.m1, self.m2, self.m3)
        return self.slopes(scale, log_negatives_N, *target)
