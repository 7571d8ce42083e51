"""P2SGrad: the cosine in place of the softmax probability."""

from __future__ import annotations

import math

from torch import Tensor

from partial_fc.functional import adacos, p2sgrad
from partial_fc.objectives.objective import Objective
from partial_fc.rules import Rule
from partial_fc.slopes import Cosines, Slopes


class P2SGrad(Objective):
    """The cosine in place of the softmax probability: Zhang et al., 1905.02479, eq. 11. Nothing to tune at C ≈ D.

    ``inter_class_weight`` is the weight λ of the other classes' slopes ``λ c_ij``. ``1.0`` is the paper; it collapses
    once C exceeds about D (``docs/experiments.md``). ``"balanced"`` is ``kappa · D/C``. Under class sampling λ is
    divided by the rate: an estimate of the sum over the other classes, biased towards the batch's own, which are
    always drawn.

    ``slope_scale`` multiplies loss and slopes: ``"adacos"`` is √2·ln(C-1), so that one learning rate serves this and
    the softmax losses; 1.0 is the paper.
    """

    is_quadratic = True

    def __init__(
        self,
        inter_class_weight: float | str = "balanced",
        *,
        kappa: float = 0.1,
        slope_scale: float | str = "adacos",
    ) -> None:
        super().__init__()
        self.inter_class_weight = _number_or(inter_class_weight, "balanced", "inter_class_weight")
        self.slope_scale = _number_or(slope_scale, "adacos", "slope_scale")
        self.kappa = _positive(kappa, "kappa")

    def forward(self, cosines: Cosines) -> Slopes:
        """See :class:`Objective`."""
        gain = adacos.fixed_scale(cosines.num_classes) if isinstance(self.slope_scale, str) else self.slope_scale
        weight = self._inter_class_weight(cosines) * cosines.inverse_sample_rate
        squares_N = cosines.squares_over_negatives()
        linear_weight = (gain * weight).to(squares_N.dtype)
        return Slopes(
            (gain * p2sgrad.p2sgrad_loss(cosines.target_N.double(), squares_N.double(), weight)).to(squares_N.dtype),
            gain * (cosines.target_N - 1.0),
            Rule(Tensor.mul_, (linear_weight,)),
            linear_weight=linear_weight,
        )

    def _inter_class_weight(self, cosines: Cosines) -> float:
        if isinstance(self.inter_class_weight, str):
            return p2sgrad.balanced_weight(cosines.num_classes, cosines.embedding_dim, self.kappa)
        return self.inter_class_weight


def _number_or(value: str | float, word: str, name: str) -> str | float:
    if isinstance(value, str) and value != word:
        raise ValueError(f"{name}={value!r}: expected {word!r} or a number")
    return value if isinstance(value, str) else _positive(value, name)


def _positive(value: float, name: str) -> float:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name}={value}: expected a positive number")
    return float(value)
