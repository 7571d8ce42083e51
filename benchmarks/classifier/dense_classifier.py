"""What the field does, written plainly: the whole matrix of logits, autograd, a dense gradient.

A clean-room model of the sharded softmax heads in common use (PartialFC_V2 of arcface_torch above all): the same
copies of the same matrices in the same order, no faster and no slower on purpose. It is what the benchmark compares
with, not a part of the library.

Legend: ``N`` rows of the global batch, ``n`` this rank's; ``c`` this rank's classes (those sampled, where they are);
``D`` dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from partial_fc.rows.sharding import class_range
from partial_fc.world import World

NOT_HERE = -1  # the column of a target whose class another rank holds


class CosFaceLogits(nn.Module):
    """``s (cos - m [j = y])``, 1801.09414 eq. 4, with the field's signature: `(cosines, columns)`, -1 for no target."""

    def __init__(self, scale: float = 64.0, margin: float = 0.4) -> None:
        super().__init__()
        self.scale = scale
        self.margin = margin

    def forward(self, cos_Nc: Tensor, columns_N: Tensor) -> Tensor:
        """The logits. Overwrites the targets among `cos_Nc`, unseen by autograd: a shift's derivative is 1, and to
        index and put under autograd would make two matrices more.
        """
        columns_N = columns_N.view(-1)  # the field's heads hand over (N, 1)
        rows = torch.nonzero(columns_N != NOT_HERE).squeeze(1)
        with torch.no_grad():
            cos_Nc[rows, columns_N[rows]] -= self.margin
        return cos_Nc * self.scale


class DenseClassifier(nn.Module):
    """A margin softmax over all classes of all ranks; `backward` leaves a dense gradient in `weight.grad`.

    Every rank brings as many rows. With `sample_rate` < 1 a rank's weights are indexed: its batch's own classes, filled
    up at random to that share of its rows; the gradient of the index is dense again, of the whole matrix.
    `product_dtype` is that of the big products; the field's is float32.

    A step's communication: an all-gather of N·D and one of N, three of N floats for the softmax, and a reduce-scatter
    of N·D.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        *,
        margin_loss: nn.Module | None = None,
        sample_rate: float = 1.0,
        product_dtype: torch.dtype = torch.float32,
        world: World | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.world = World() if world is None else world
        if num_classes < self.world.size:
            raise ValueError(f"num_classes={num_classes}: expected one for each of {self.world.size} ranks at least")
        self.shard = class_range(num_classes, self.world.rank, self.world.size)
        self.sample_rate = sample_rate
        self.product_dtype = product_dtype
        self.margin_loss = CosFaceLogits() if margin_loss is None else margin_loss
        generator = torch.Generator().manual_seed(seed + self.world.rank)
        self.weight = nn.Parameter(torch.empty(len(self.shard), embedding_dim).normal_(0, 0.01, generator=generator))

    def forward(self, embeddings_nD: Tensor, labels_n: Tensor) -> Tensor:
        """The mean loss of the global batch."""
        counts = [len(labels_n)] * self.world.size
        embeddings_ND: Tensor = _GatheredRows.apply(embeddings_nD, counts, self.world)  # type: ignore[no-untyped-call]
        labels_N = self.world.gather_rows(labels_n, counts)
        is_here = (labels_N >= self.shard.start) & (labels_N < self.shard.stop)
        columns_N = torch.where(is_here, labels_N - self.shard.start, NOT_HERE)
        weight_cD: Tensor = self.weight
        if self.sample_rate < 1.0:
            sampled = self._sampled_columns(columns_N[is_here])
            columns_N = torch.where(is_here, torch.searchsorted(sampled, columns_N), NOT_HERE)
            weight_cD = self.weight[sampled]
        logits_Nc = self.margin_loss(self._cosines(embeddings_ND, weight_cD), columns_N)
        loss: Tensor = _CrossEntropy.apply(logits_Nc, columns_N, self.world)  # type: ignore[no-untyped-call]
        return loss

    def _sampled_columns(self, positives: Tensor) -> Tensor:
        """The batch's own columns, and random others up to the sampled share of the shard, in rising order."""
        positives = torch.unique(positives)
        wanted = max(1, int(self.sample_rate * len(self.shard)))
        if len(positives) >= wanted:
            return positives
        priority = torch.rand(len(self.shard), device=positives.device)
        priority[positives] = 2.0
        return priority.topk(wanted).indices.sort().values

    def _cosines(self, embeddings_ND: Tensor, weight_cD: Tensor) -> Tensor:
        unit_ND, unit_cD = normalize(embeddings_ND), normalize(weight_cD)
        cos_Nc = linear(unit_ND.to(self.product_dtype), unit_cD.to(self.product_dtype))
        return cos_Nc.float().clamp(-1, 1)


class _GatheredRows(torch.autograd.Function):
    """Every rank's rows; the gradient of each comes home as the sum over ranks."""

    @staticmethod
    def forward(ctx: Any, rows_nD: Tensor, counts: list[int], world: World) -> Tensor:
        ctx.counts, ctx.world = counts, world
        return world.gather_rows(rows_nD, counts)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        return ctx.world.scatter_sum_rows(grad_outputs[0], ctx.counts), None, None


class _CrossEntropy(torch.autograd.Function):
    """The mean cross-entropy over the ranks' columns: a pass for the maximum, one for the sum, one for the targets.

    The probabilities are made in the logits' own memory and become the gradient in theirs, as in the field's.
    """

    @staticmethod
    def forward(ctx: Any, logits_Nc: Tensor, columns_N: Tensor, world: World) -> Tensor:
        largest_N = world.all_gather(logits_Nc.amax(dim=1)).amax(dim=0)
        probability_Nc = logits_Nc.sub_(largest_N[:, None]).exp_()
        probability_Nc.div_(world.all_sum(probability_Nc.sum(dim=1))[:, None])
        rows = torch.nonzero(columns_N != NOT_HERE).squeeze(1)
        target_N = torch.zeros_like(largest_N)
        target_N[rows] = probability_Nc[rows, columns_N[rows]]
        ctx.save_for_backward(probability_Nc, rows, columns_N[rows])  # autograd lets go of them at once when used
        return world.all_sum(target_N).clamp_min(1e-30).log().mean().neg()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        grad_Nc, rows, columns = ctx.saved_tensors
        grad_Nc[rows, columns] -= 1.0
        return grad_Nc.mul_(grad_outputs[0] / len(grad_Nc)), None, None
