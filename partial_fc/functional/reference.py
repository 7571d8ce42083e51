"""The oracle: the whole (N, C) matrix, float64 unless told otherwise, autograd and plain loops. For tests only.

``embeddings (N, D)``, ``rows (C, D)``, ``labels (N,)``. Every loss is the mean over the N rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosines(embeddings: Tensor, rows: Tensor) -> Tensor:
    """``(N, C)`` cosines; a zero embedding has the cosine 0 to everything, and no gradient."""
    units = []
    for matrix in (embeddings, rows):
        norm = matrix.square().sum(dim=1, keepdim=True)
        safe = torch.where(norm > 0, norm, 1.0).sqrt()
        units.append(torch.where(norm > 0, matrix / safe, 0.0))
    return units[0] @ units[1].T


def cosine_softmax(cos_NC: Tensor, labels: Tensor, scale: float) -> Tensor:
    """NormFace."""
    return torch.nn.functional.cross_entropy(scale * cos_NC, labels)


def cosface(cos_NC: Tensor, labels: Tensor, scale: float, margin: float) -> Tensor:
    """``s (c_y - m)`` at the target."""
    return torch.nn.functional.cross_entropy(scale * (cos_NC - margin * _one_hot(cos_NC, labels)), labels)


def arcface(cos_NC: Tensor, labels: Tensor, scale: float, margin: float, straight_through: bool = False) -> Tensor:
    """``s cos(θ_y + m)`` at the target, by arccos; ``straight_through`` gives the target's edit no derivative."""
    target = cos_NC.gather(1, labels[:, None])
    margined = torch.cos(torch.arccos(target) + margin)
    if straight_through:
        margined = target + (margined - target).detach()
    logits = scale * cos_NC.scatter(1, labels[:, None], margined)
    return torch.nn.functional.cross_entropy(logits, labels)


def combined_margin(
    cos_NC: Tensor, labels: Tensor, scale: float, margins: tuple[float, float, float], filter_above: float | None
) -> Tensor:
    """``s (cos(m1 θ_y + m2) - m3)`` at the target; another class above ``filter_above`` has the logit 0."""
    m1, m2, m3 = margins
    is_target = _one_hot(cos_NC, labels) > 0
    if filter_above is not None:
        cos_NC = torch.where((cos_NC > filter_above) & ~is_target, 0.0, cos_NC)
    margined = torch.cos(m1 * torch.arccos(cos_NC.gather(1, labels[:, None])) + m2) - m3
    return torch.nn.functional.cross_entropy(scale * cos_NC.scatter(1, labels[:, None], margined), labels)


def adacos_scale(cos_NC: Tensor, labels: Tensor, previous_scale: float) -> float:
    """AdaCos' next scale by loops and Python floats: 1905.00292, eq. 14; the lower of two middle angles."""
    total, angles = 0.0, []
    for row, label in zip(cos_NC.tolist(), labels.tolist(), strict=True):
        total += sum(math.exp(previous_scale * cos) for column, cos in enumerate(row) if column != label)
        angles.append(math.acos(min(max(row[label], -1.0), 1.0)))
    median = sorted(angles)[(len(angles) - 1) // 2]
    return math.log(total / len(angles)) / math.cos(min(math.pi / 4, median))


def p2sgrad(cos_NC: Tensor, labels: Tensor, inter_class_weight: float, slope_scale: float) -> Tensor:
    """``½ Σ_j λ_j (c_ij - 1[j=y])²``, λ = 1 at the target."""
    one_hot = _one_hot(cos_NC, labels)
    weights = one_hot + (1.0 - one_hot) * inter_class_weight
    return slope_scale * 0.5 * (weights * (cos_NC - one_hot).square()).sum(dim=1).mean()


def p2sgrad_beyond_chance(cos_NC: Tensor, labels: Tensor, chance: float, slope_scale: float, pull: str) -> Tensor:
    """``½ (1 - c_y)²`` (fading) or ``1 - c_y`` (steady), plus ``½ Σ_{j≠y} [c_ij - τ]₊²``."""
    is_target = _one_hot(cos_NC, labels) > 0
    short_N = 1.0 - cos_NC.gather(1, labels[:, None])[:, 0]
    excesses_NC = torch.where(is_target, 0.0, (cos_NC - chance).clamp(min=0.0))
    pull_N = 0.5 * short_N.square() if pull == "fading" else short_N
    return slope_scale * (pull_N + 0.5 * excesses_NC.square().sum(dim=1)).mean()


def p2sgrad_gradients(
    embeddings: Tensor, rows: Tensor, labels: Tensor, inter_class_weight: float
) -> tuple[Tensor, Tensor]:
    """P2SGrad's gradients by the paper's own formula (1905.02479, eq. 11) and plain loops, without any loss."""
    grad_x, grad_w = torch.zeros_like(embeddings), torch.zeros_like(rows)
    for i, x in enumerate(embeddings):
        for j, w in enumerate(rows):
            x_unit, w_unit = x / x.norm(), w / w.norm()
            cos = x_unit @ w_unit
            slope = cos - 1.0 if j == labels[i] else inter_class_weight * cos
            grad_x[i] += slope * (w_unit - cos * x_unit) / x.norm()
            grad_w[j] += slope * (x_unit - cos * w_unit) / w.norm()
    return grad_x / len(embeddings), grad_w / len(embeddings)


def _one_hot(cos_NC: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, cos_NC.shape[1]).to(cos_NC.dtype)
