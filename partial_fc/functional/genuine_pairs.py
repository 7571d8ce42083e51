"""All pairs of rows with one label."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def genuine_pairs(labels_N: Int[Tensor, " N"], most_of_label: int | None = None) -> Int[Tensor, "P 2"]:
    """Every pair (i, j) of rows of one label once, label after label: 16 bytes a pair.

    With `most_of_label` no more than so many rows of a label are paired, spread evenly over its own.
    """
    order_N = labels_N.argsort(stable=True)
    counts = torch.unique(labels_N, return_counts=True)[1].tolist()
    of_labels = (rows[:: -(-len(rows) // (most_of_label or len(rows)))] for rows in torch.split(order_N, counts))
    pairs = [torch.combinations(rows) for rows in of_labels if len(rows) > 1]
    return torch.cat(pairs) if pairs else labels_N.new_empty(0, 2, dtype=torch.int64)
