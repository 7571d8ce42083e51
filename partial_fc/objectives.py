"""The losses, as modules that hold their state. One table by name: :data:`OBJECTIVES`.

Every loss here is a rule for the slope ``r_ij = ∂loss_i/∂c_ij`` of a cosine. An objective is asked once a step, with
the target cosines of the global batch in hand and a way to sum over the other classes; it answers with
:class:`Slopes`. It never sees the (N, C) matrix, never knows which rank it is on, and never divides by N.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from partial_fc.functional import adacos, margins, p2sgrad, softmax
from partial_fc.fused import fused_on_gpus
from partial_fc.slopes import Cosines, Slopes

_exponentials_ = fused_on_gpus(softmax.exponentials_)
_negative_slopes_ = fused_on_gpus(softmax.negative_slopes_)


class Objective(nn.Module):
    """A cosine loss. Subclasses answer :meth:`forward`; state they keep is a buffer and changes in training only.

    ``is_quadratic``: its slopes are linear in the cosines (:attr:`Slopes.linear_weight`), so no cosine need be made.
    """

    is_quadratic = False

    def forward(self, cosines: Cosines) -> Slopes:
        """The loss and the slopes of one step."""
        raise NotImplementedError


class _ScaledSoftmax(Objective):
    """The softmax over scaled cosines that NormFace, CosFace, ArcFace and AdaCos share."""

    def _log_negatives(self, cosines: Cosines, scale: Tensor) -> Float[Tensor, " N"]:
        """``ln Σ_{j≠y} exp(s c_ij)`` in float64: one sweep."""
        shift = softmax.exponent_shift(scale, cosines.num_classes)
        sums_N = cosines.sum_over_negatives(lambda cos_Nb: _exponentials_(cos_Nb, scale, shift))
        return softmax.log_of_sum(sums_N, shift)

    def _slopes(
        self, scale: Tensor, log_negatives_N: Tensor, margined_N: Tensor, derivative_N: Tensor, **figures: Tensor
    ) -> Slopes:
        dtype = margined_N.dtype
        loss_N, excess_N, log_normaliser_N = softmax.softmax_loss(log_negatives_N, scale.double() * margined_N.double())
        # A logarithm near the scale, rounded to float32, would be P_ij's largest error: its remainder goes to the gain.
        rounded_N = log_normaliser_N.to(dtype)
        gain_N = (scale * torch.exp(rounded_N - log_normaliser_N)).to(dtype)
        return Slopes(
            loss_N.to(dtype),
            scale * derivative_N * excess_N.to(dtype),
            lambda cos_Nb: _negative_slopes_(cos_Nb, scale, rounded_N[:, None], gain_N[:, None]),
            {"scale": scale, **figures},
        )


class CosineSoftmax(_ScaledSoftmax):
    """Softmax of ``scale`` times the cosine: NormFace, Wang et al., 1704.06369. One sweep before the gradient's."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = _checked_scale(scale)

    def forward(self, cosines: Cosines) -> Slopes:
        """See :class:`Objective`."""
        scale = cosines.own_target_N.new_full((), self.scale)
        log_negatives_N = self._log_negatives(cosines, scale)
        return self._slopes(scale, log_negatives_N, *self._target(cosines.target_N))

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


class AdaCos(_ScaledSoftmax):
    """Softmax whose scale follows from the batch: Zhang et al., 1905.00292. No margin, no scale to choose.

    ``dynamic=False``: the fixed scale √2·ln(C-1), eq. 12. ``dynamic=True``: eq. 14, from the global batch's median
    target angle and average negative sum; no gradient flows through the scale. The first step uses the fixed one.

    - ``statistics="current"``, the paper: a step's scale comes from its own batch, at one more sweep of products.
    - ``statistics="previous"``: it comes from the batch before, whose negative sum was at hand: no extra sweep.

    ``max_scale`` (at most 80) ends the divergence that crowded negatives cause; ``figures["scale_capped"]`` is 1 in a
    step where a limit binds. Under class sampling the negative sum is corrected for the classes left out. The scale
    is saved with the module, equal on all ranks, and untouched in evaluation.
    """

    scale: Tensor
    steps: Tensor

    def __init__(
        self, num_classes: int, *, dynamic: bool = True, statistics: str = "current", max_scale: float = 64.0
    ) -> None:
        super().__init__()
        if statistics not in ("current", "previous"):
            raise ValueError(f"statistics={statistics!r}: expected 'current' or 'previous'")
        self.num_classes = num_classes
        self.dynamic = dynamic
        self.statistics = statistics
        self.max_scale = _checked_scale(max_scale, "max_scale")
        first = min(adacos.fixed_scale(num_classes), self.max_scale)
        self.register_buffer("scale", torch.tensor(first, dtype=torch.float64))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, cosines: Cosines) -> Slopes:
        """See :class:`Objective`. Raises ValueError when the classifier has another number of classes."""
        if cosines.num_classes != self.num_classes:
            raise ValueError(f"AdaCos(num_classes={self.num_classes}) in a classifier of {cosines.num_classes} classes")
        scale = self.scale.to(
            cosines.own_target_N.dtype, copy=True
        )  # a float64 step must not see its own scale updated
        log_negatives_N = self._log_negatives(cosines, scale)
        target_N = cosines.target_N
        capped = (self.scale >= self.max_scale).to(target_N.dtype)
        if self.dynamic and self.training:
            following, limited = adacos.dynamic_scale(
                log_negatives_N + cosines.inverse_sample_rate.log(),
                cosines.median_target_angle.double(),
                self.num_classes,
                self.max_scale,
            )
            following = torch.where(following.isfinite(), following, self.scale)  # of a batch that is not finite
            if self.statistics == "previous":
                self.scale.copy_(following)
                capped = limited
            else:
                first = self.steps == 0
                self.scale.copy_(torch.where(first, self.scale, following))
                capped = torch.where(first, capped, limited)
                scale = self.scale.to(target_N.dtype, copy=True)
                log_negatives_N = self._log_negatives(cosines, scale)
            self.steps += 1
        return self._slopes(scale, log_negatives_N, target_N, torch.ones_like(target_N), scale_capped=capped)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AdaCos:
        scale = self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.scale = scale.to(self.scale.device)  # never in half precision: module.bfloat16() must not round it
        return self


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
        self, inter_class_weight: str | float = "balanced", *, kappa: float = 0.1, slope_scale: str | float = "adacos"
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
            lambda cos_Nb: cos_Nb.mul_(linear_weight),
            linear_weight=linear_weight,
        )

    def _inter_class_weight(self, cosines: Cosines) -> float:
        if isinstance(self.inter_class_weight, str):
            return p2sgrad.balanced_weight(cosines.num_classes, cosines.embedding_dim, self.kappa)
        return self.inter_class_weight


OBJECTIVES: dict[str, type[Objective]] = {
    "cosine_softmax": CosineSoftmax,
    "cosface": CosFace,
    "arcface": ArcFace,
    "adacos": AdaCos,
    "p2sgrad": P2SGrad,
}


def _checked_scale(scale: float, name: str = "scale") -> float:
    if not 0.0 < scale <= softmax.LARGEST_SCALE:
        raise ValueError(f"{name}={scale}: expected 0 < {name} <= {softmax.LARGEST_SCALE:g}, the range float32 carries")
    return float(scale)


def _checked_margin(margin: float, end: float) -> float:
    if not 0.0 <= margin < end:
        raise ValueError(f"margin={margin}: expected 0 <= margin < {end:.4g}")
    return float(margin)


def _number_or(value: str | float, word: str, name: str) -> str | float:
    if isinstance(value, str) and value != word:
        raise ValueError(f"{name}={value!r}: expected {word!r} or a number")
    return value if isinstance(value, str) else _positive(value, name)


def _positive(value: float, name: str) -> float:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name}={value}: expected a positive number")
    return float(value)
