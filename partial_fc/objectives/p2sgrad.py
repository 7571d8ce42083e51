"""P2SGrad: the cosine in place of the softmax probability."""

from __future__ import annotations

import math

from torch import Tensor

from partial_fc.functional import adacos, p2sgrad
from partial_fc.objectives.objective import Objective
from partial_fc.rules import Rule
from partial_fc.slopes import Cosines, Slopes

NEGATIVES = ("all", "beyond_chance")
PULLS = ("fading", "steady")


class P2SGrad(Objective):
    """The cosine in place of the softmax probability: Zhang et al., 1905.02479, eq. 11. Nothing to tune at C ≈ D.

    ``negatives`` says which other classes push an image away:

    - ``"all"``, with the slopes ``λ c_ij``; ``inter_class_weight`` is λ. ``1.0`` is the paper; it collapses once C
      exceeds about D (``docs/experiments.md``). ``"balanced"`` is ``kappa · D/C``.
    - ``"beyond_chance"``, which is this project's and not the paper's: those nearer than chance, with the slopes
      ``[c_ij - τ]₊`` and ``τ = √(2 ln(C-1) / D)``. Near classes are told apart, which a push by all cannot do, and few
      classes have a slope at all. The others' rows keep weight and optimizer state in such a step, as under class
      sampling. ``chance_multiple`` is for experiments: τ times this number.

    ``pull`` is the slope at the target: ``"fading"``, ``c_y - 1`` (the paper), or ``"steady"``, -1. The loss is
    ``½ (1 - c_y)²`` or ``1 - c_y``, plus ``½ λ Σ c_ij²`` or ``½ Σ [c_ij - τ]₊²``.

    ``slope_scale`` multiplies loss and slopes: ``"adacos"`` is √2·ln(C-1), so that one learning rate serves this and
    the softmax losses; 1.0 is the paper.

    Under class sampling a sum over the other classes is estimated. Of all of them: λ is divided by the rate, biased
    towards the batch's own classes, which are always drawn. Beyond chance: each drawn class counts 1/rate times and
    each of the batch's own once, so that loss and slopes are right on average.

    Raises ValueError where τ would be 1 or more, when the classifier is made.
    """

    def __init__(
        self,
        inter_class_weight: float | str = "balanced",
        *,
        negatives: str = "all",
        pull: str = "fading",
        kappa: float = 0.1,
        slope_scale: float | str = "adacos",
        chance_multiple: float = 1.0,
    ) -> None:
        super().__init__()
        for name, word, words in (("negatives", negatives, NEGATIVES), ("pull", pull, PULLS)):
            if word not in words:
                raise ValueError(f"{name}={word!r}: expected {words[0]!r} or {words[1]!r}")
        self.negatives, self.pull = negatives, pull
        self.inter_class_weight = _number_or(inter_class_weight, "balanced", "inter_class_weight")
        self.slope_scale = _number_or(slope_scale, "adacos", "slope_scale")
        self.kappa = _positive(kappa, "kappa")
        self.chance_multiple = _positive(chance_multiple, "chance_multiple")
        self.is_sparse = negatives == "beyond_chance"
        self.is_quadratic = not self.is_sparse
        if self.is_sparse and (inter_class_weight, kappa) != ("balanced", 0.1):
            raise ValueError("inter_class_weight and kappa go with negatives='all': leave them out beyond chance")
        if self.is_quadratic and chance_multiple != 1.0:
            raise ValueError("chance_multiple goes with negatives='beyond_chance': leave it out with all of them")

    def refuse_unfit(self, num_classes: int, embedding_dim: int) -> None:
        """See :class:`Objective`."""
        if not self.is_sparse or (chance := self._chance(num_classes, embedding_dim)) < 1.0:
            return
        raise ValueError(
            f"of {num_classes:,} classes in {embedding_dim} dimensions the nearest by chance is at the cosine "
            f"τ = {self._told_multiple()}√(2·ln(C-1)/D) = {chance:.3g}, and none can lie beyond it: expected more than "
            f"{math.floor(embedding_dim * chance**2)} dimensions, or negatives='all'"
        )

    def forward(self, cosines: Cosines) -> Slopes:
        """See :class:`Objective`."""
        gain = adacos.fixed_scale(cosines.num_classes) if isinstance(self.slope_scale, str) else self.slope_scale
        return self._beyond_chance(cosines, gain) if self.is_sparse else self._of_all(cosines, gain)

    def _of_all(self, cosines: Cosines, gain: float) -> Slopes:
        weight = self._inter_class_weight(cosines) * cosines.inverse_sample_rate
        squares_N = cosines.squares_over_negatives()
        linear_weight = (gain * weight).to(squares_N.dtype)
        return Slopes(
            (gain * self._loss(cosines.target_N, weight * squares_N.double())).to(squares_N.dtype),
            gain * self._target_slope(cosines.target_N),
            Rule(Tensor.mul_, (linear_weight,)),
            squares_N.new_full((), gain),
            linear_weight=linear_weight,
        )

    def _beyond_chance(self, cosines: Cosines, gain: float) -> Slopes:
        chance = self._chance(cosines.num_classes, cosines.embedding_dim)
        near = cosines.near_negatives(chance)
        dtype = near.squares_N.dtype
        threshold, scale = near.squares_N.new_full((), chance), near.squares_N.new_full((), gain)
        return Slopes(
            (gain * self._loss(cosines.target_N, near.squares_N.double())).to(dtype),
            gain * self._target_slope(cosines.target_N),
            Rule(p2sgrad.excesses_, (threshold, scale)),
            scale,
            {"near_per_image": near.number_N.mean()},
            near_above=chance,
        )

    def _chance(self, num_classes: int, embedding_dim: int) -> float:
        return self.chance_multiple * p2sgrad.chance_cosine(num_classes, embedding_dim)

    def _told_multiple(self) -> str:
        return "" if self.chance_multiple == 1.0 else f"{self.chance_multiple:g}·"

    def _loss(self, target_N: Tensor, push_N: Tensor) -> Tensor:
        target_N = target_N.double()
        if self.pull == "steady":
            return 1.0 - target_N + 0.5 * push_N
        return p2sgrad.p2sgrad_loss(target_N, push_N, 1.0)

    def _target_slope(self, target_N: Tensor) -> Tensor:
        return target_N - 1.0 if self.pull == "fading" else -target_N.new_ones(len(target_N))

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
