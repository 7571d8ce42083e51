"""What torch itself offers for many classes: the cross-entropy of a linear layer in chunks, new in torch 2.13.

No matrix of all logits; the gradients are made in the forward pass. On one rank.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

SCALE = 64.0
CHUNK_ROWS = 256  # torch's own choice at 200,000 classes is 2, whose products take twelve times as long on a CPU


class ChunkedClassifier(nn.Module):
    """The softmax over scaled cosines by `torch.nn.functional.linear_cross_entropy`."""

    def __init__(self, num_classes: int, embedding_dim: int, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_dim).normal_(0, 0.01, generator=generator))
        self.options = nn.LinearCrossEntropyOptions(batch_chunk_size=CHUNK_ROWS, chunking_method=None)

    def forward(self, embeddings_ND: Tensor, labels_N: Tensor) -> Tensor:
        """The mean loss."""
        scaled_ND, unit_CD = SCALE * normalize(embeddings_ND), normalize(self.weight)
        loss: Tensor = nn.functional.linear_cross_entropy(scaled_ND, unit_CD, labels_N, options=self.options)
        return loss
