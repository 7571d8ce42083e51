"""AdaCos: a softmax whose scale follows from the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from partial_fc.functional import adacos
from partial_fc.objectives.scaled_softmax import ScaledSoftmax, checked_scale
from partial_fc.slopes import Cosines, Slopes


class AdaCos(ScaledSoftmax):
    """Softmax whose scale follows from the batch: Zhang et al., 1905.00292. No margin, no scale to choose.

    ``dynamic=False``: the fixed scale √2·ln(C-1), eq. 12. ``dynamic=True``: eq. 14, from the global batch's median
    target angle and average negative sum; no gradient flows through the scale. The first step uses the fixed one.

    - ``statistics="current"``, the paper: a step's scale comes from its own batch, at one more sweep of products.
    - ``statistics="previous"``: it comes from the batch before, whose negative sum was at hand: no extra sweep.

    Two cures of a scale that runs up with its negatives, not the paper's and tried in ``docs/experiments.md``:
    ``average="median"`` takes the median row's negative sum in place of the mean; ``may_fall=False`` keeps the scale
    from falling.

    ``max_scale`` (at most 80) ends the divergence that crowded negatives cause; ``figures["scale_capped"]`` is 1 in a
    step where a limit binds. Under class sampling the negative sum is corrected for the classes left out. The dynamic
    scale is saved with the module, equal on all ranks, and untouched in evaluation.
    """

    scale: Tensor
    steps: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        dynamic: bool = True,
        statistics: str = "current",
        max_scale: float = 64.0,
        average: str = "mean",
        may_fall: bool = True,
    ) -> None:
        super().__init__()
        if statistics not in ("current", "previous"):
            raise ValueError(f"statistics={statistics!r}: expected 'current' or 'previous'")
        if average not in ("mean", "median"):
            raise ValueError(f"average={average!r}: expected 'mean' or 'median'")
        self.average, self.may_fall = average, may_fall
        self.num_classes = num_classes
        self.dynamic = dynamic
        self.statistics = statistics
        self.max_scale = checked_scale(max_scale, "max_scale")
        first = min(adacos.fixed_scale(num_classes), self.max_scale)
        # A fixed scale follows from the number of classes, and is no state: loaded, it could be that of another number.
        self.register_buffer("scale", torch.tensor(first, dtype=torch.float64), persistent=dynamic)
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, cosines: Cosines) -> Slopes:
        """See :class:`Objective`. Raises ValueError when the classifier has another number of classes."""
        if cosines.num_classes != self.num_classes:
            raise ValueError(f"AdaCos(num_classes={self.num_classes}) in a classifier of {cosines.num_classes} classes")
        # A copy: a float64 step must not see its own scale updated.
        scale = self.scale.to(cosines.own_target_N.dtype, copy=True)
        log_negatives_N = self.log_negatives(cosines, scale)
        target_N = cosines.target_N
        capped = (self.scale >= self.max_scale).to(target_N.dtype)
        if self.dynamic and self.training:
            following, limited = adacos.dynamic_scale(
                log_negatives_N + cosines.inverse_sample_rate.log(),
                cosines.median_target_angle.double(),
                self.num_classes,
                self.max_scale,
                self.average,
            )
            following = following if self.may_fall else torch.maximum(following, self.scale.clamp(max=self.max_scale))
            following = torch.where(following.isfinite(), following, self.scale)  # of a batch that is not finite
            if self.statistics == "previous":
                self.scale.copy_(following)
                capped = limited
            else:
                first = self.steps == 0
                self.scale.copy_(torch.where(first, self.scale, following))
                capped = torch.where(first, capped, limited)
                scale = self.scale.to(target_N.dtype, copy=True)
                log_negatives_N = self.log_negatives(cosines, scale)
            self.steps += 1
        return self.slopes(scale, log_negatives_N, target_N, torch.ones_like(target_N), scale_capped=capped)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AdaCos:
        scale = self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.scale = scale.to(self.scale.device)  # never in half precision: module.bfloat16() must not round it
        return self
