"""All pairs of rows with one label."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def genuine_pairs(labels_N: Int[Tensor, " N"]) -> Int[Tensor, "P 2"]:
    """Every pair (i, j) of rows of one label once, label after label: 16 bytes a pair."""
    order_N = labels_N.argsort(stable=True)
    counts = torch.unique(labels_N, return_counts=True)[1].tolist()
    pairs = [torch.combinations(rows) for rows in torch.split(order_N, counts) if len(rows) > 1]
    return torch.cat(pairs) if pairs else labels_N.new_empty(0, 2, dtype=torch.int64)
