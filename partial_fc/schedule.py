"""The learning rate's course: a factor per step, for backbone and class rows alike."""

from __future__ import annotations

import math
from typing import Literal

Decay = Literal["polynomial", "cosine"]


def learning_rate_factor(
    step: int,
    *,
    total_steps: int,
    warmup_steps: int = 0,
    decay: Decay = "polynomial",
    power: float = 1.0,
    final: float = 0.0,
) -> float:
    """The factor in [0, 1] by which step ``step`` = 0 ... ``total_steps`` - 1 multiplies the learning rate.

    Warm-up: ``(step + 1) / warmup_steps``, so that the first step is already a small one and the last of the warm-up
    is a whole one. Then, with t going from 0 there (or at step 0 without a warm-up) to 1 at the very last step::

        polynomial   final + (1 - final) (1 - t)^power          cosine   final + (1 - final) (1 + cos πt) / 2

    which never rises and ends at ``final`` exactly. A run of a single step is at its last: ``final``.
    ValueError for a step outside the run, a warm-up that leaves no step for the decay, an unknown decay, a power that
    is not positive, a ``final`` outside [0, 1].
    """
    _refuse_bad_schedule(total_steps, warmup_steps, decay, power, final)
    if not 0 <= step < total_steps:
        raise ValueError(f"step counts from 0 to total_steps - 1 = {total_steps - 1}, got {step}")
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    whole = max(warmup_steps - 1, 0)
    left = (total_steps - 1 - step) / max(total_steps - 1 - whole, 1)
    fall = left**power if decay == "polynomial" else (1.0 - math.cos(math.pi * left)) / 2.0
    return final + (1.0 - final) * fall


def _refuse_bad_schedule(total_steps: int, warmup_steps: int, decay: str, power: float, final: float) -> None:
    if total_steps < 1:
        raise ValueError(f"total_steps is at least 1, got {total_steps}")
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"warmup_steps is at least 0 and below total_steps = {total_steps}, got {warmup_steps}")
    if decay not in ("polynomial", "cosine"):
        raise ValueError(f"decay is 'polynomial' or 'cosine', got {decay!r}")
    if not (power > 0.0 and math.isfinite(power)):
        raise ValueError(f"power is positive and finite, got {power}")
    if not 0.0 <= final <= 1.0:
        raise ValueError(f"final is a share of the learning rate in [0, 1], got {final}")
