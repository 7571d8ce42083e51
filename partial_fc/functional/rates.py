"""What every verification says, whatever its pairs come from; and the rows that none can be made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from partial_fc.functional import verification

FARS = ("1e-1", "1e-2", "1e-3", "1e-4", "1e-5", "1e-6")


def check_unit_rows(unit_ND: Tensor) -> None:
    """ValueError for rows longer than 1 or not finite; of gathered rows, so that no rank raises alone."""
    length_N = torch.linalg.vector_norm(unit_ND, dim=1, dtype=torch.float32)
    bad = (~(length_N <= 1.01)).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(unit_ND)} embeddings cannot be compared, the first in row {int(bad[0])} of length "
            f"{float(length_N[bad[0]])}: expected finite rows of length 1. A network that gives others has diverged"
        )


def rates(points: verification.Roc) -> dict[str, Any]:
    """The fields that every evaluation has, whatever its pairs come from."""
    eer, eer_threshold = verification.equal_error_rate(points)
    best_accuracy, best_accuracy_threshold = verification.best_accuracy(points)
    at_far = {far: verification.tar_at_far(points, float(far)) for far in FARS}
    countable = {far: point for far, point in at_far.items() if point is not None}
    return {
        "eer": eer,
        "eer_threshold": eer_threshold,
        "best_accuracy": best_accuracy,
        "best_accuracy_threshold": best_accuracy_threshold,
        "tar_at_far": {far: tar for far, (tar, _) in countable.items()},
        "threshold_at_far": {far: threshold for far, (_, threshold) in countable.items()},
        "roc": verification.thinned_roc(points),
    }


def pair_counts(points: verification.Roc) -> dict[str, int]:
    """How many pairs of each kind the rates rest on."""
    genuine, impostor = int(points.accepted_genuine_K[0]), int(points.accepted_impostor_K[0])
    return {"genuine_pairs": genuine, "impostor_pairs": impostor}


def named_points(roc: list[tuple[float, float, float]]) -> list[dict[str, float]]:
    """The points of a ROC as JSON has them."""
    return [dict(zip(("threshold", "far", "tar"), point, strict=True)) for point in roc]
