"""The sharded classifier: gather the batch, sweep this shard's classes in blocks, send the gradients home.

Legend: ``N`` rows of the global batch, ``n`` this rank's; ``C`` all classes, ``c`` this rank's, ``b`` one block's;
``D`` dimensions. A ``class_id`` is global, a ``column`` local to the shard.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from partial_fc.functional import cosine
from partial_fc.objectives import Objective, Slopes
from partial_fc.rows import RowSGD
from partial_fc.sampling import drawn_classes, initial_rows
from partial_fc.sharding import class_range, owned_targets
from partial_fc.sweep import Sweep
from partial_fc.world import World, current_world


class ShardedClassifier(nn.Module):
    """A cosine classifier of ``num_classes`` whose rows are dealt out over the ranks of ``world``.

    ``loss = head(embeddings, labels)`` takes this rank's ``(n, D)`` embeddings and ``(n,)`` int64 labels and gives the
    objective's mean over the *global* batch, the same number on every rank. ``loss.backward()`` fills the embeddings'
    gradient with this rank's part of the gradient of that mean: SUM the backbone's replicas
    (:func:`partial_fc.sum_gradients`), never average them. ``n`` may differ between ranks and steps, and be 0.

    - ``weight``: this rank's rows ``(c, D)``, a Parameter. Without ``row_optimizer`` its ``grad`` is filled, for any
      torch optimizer. Cosines are of the *normalised* rows whatever their length, so a foreign optimizer is safe; but
      its steps lengthen the rows (the gradient is tangent), which shrinks the gradient by as much, and decay
      shortens them: the angular step is its learning rate over ``|w|²``.
    - ``row_optimizer``: updates the rows inside ``backward``, block by block, and keeps them at unit length;
      ``weight.grad`` stays None and no gradient of the weights' size exists. Call ``backward`` once per forward.
    - ``shard``: the ``range`` of class ids held here. First rows are a function of (``seed``, class id) only.
    - ``sample_rate`` < 1 draws classes for a training step (Partial FC, 2203.15565): those of the batch, and of the
      others each with this probability, by (``seed``, step, class id). Only drawn rows are read and changed.
    - ``block_classes``: the width of a block; by default what keeps a block's cosines in the cache.
    - ``statistics``: the last step's figures as tensors: ``loss``, ``median_target_angle`` (radians), ``scale`` and
      ``scale_capped`` where the objective has them.

    Communication of a step: two all-gathers (3 integers a rank; the embeddings and labels, N·(D+2) words), one
    all-reduce of N floats for the targets and one for each of the objective's sums, one reduce-scatter of N·D.

    Raises ValueError for labels outside ``0 .. num_classes - 1``, on all ranks at once.
    """

    statistics: dict[str, Tensor]

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        objective: Objective,
        *,
        world: World | None = None,
        sample_rate: float = 1.0,
        block_classes: int | None = None,
        row_optimizer: RowSGD | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_classes < 2 or embedding_dim < 1:
            raise ValueError(f"got num_classes={num_classes}, embedding_dim={embedding_dim}: expected >= 2 and >= 1")
        if not 0.0 < sample_rate <= 1.0:
            raise ValueError(f"sample_rate={sample_rate}: expected 0 < sample_rate <= 1")
        if block_classes is not None and block_classes < 1:
            raise ValueError(f"block_classes={block_classes}: expected at least 1, or None")
        self.num_classes = num_classes
        self.embedding_dim = embedding_dim
        self.objective = objective
        self.world = current_world() if world is None else world
        self.sample_rate = sample_rate
        self.block_classes = block_classes
        self.row_optimizer = row_optimizer
        self.seed = seed
        self.steps = 0
        self._row_updates = 0
        self.shard = class_range(num_classes, self.world.rank, self.world.size)
        self.weight = nn.Parameter(initial_rows(self.shard, embedding_dim, seed))
        if row_optimizer is not None:
            row_optimizer.attach(self.weight.detach())
        self.statistics = {}

    def forward(self, embeddings: Float[Tensor, "n D"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """The mean loss of the global batch. In training mode a step is counted; in evaluation no state changes."""
        if embeddings.dim() != 2 or embeddings.shape[1] != self.embedding_dim or labels.shape != embeddings.shape[:1]:
            raise ValueError(
                f"got embeddings {tuple(embeddings.shape)} and labels {tuple(labels.shape)}: "
                f"expected (n, {self.embedding_dim}) and (n,)"
            )
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(f"got labels of {labels.dtype}: expected torch.int64")
        labels = labels.long()
        counts = self._agreed_counts(labels)
        # Under autocast the products of forward would run in half precision and those of backward would not.
        with torch.autocast(embeddings.device.type, enabled=False):
            loss: Tensor = _CosineLoss.apply(  # type: ignore[no-untyped-call]
                embeddings, self.weight, labels, counts, self
            )
        return loss

    def extra_repr(self) -> str:
        """The sizes, for ``print(head)``."""
        return f"num_classes={self.num_classes}, embedding_dim={self.embedding_dim}, shard={self.shard}"

    def get_extra_state(self) -> dict[str, int]:
        """The step count: with the seed it decides which classes are drawn."""
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take the step count up again."""
        self.steps = state["steps"]

    def _agreed_counts(self, labels_n: Tensor) -> list[int]:
        """Every rank's batch size; the same ValueError on every rank when any of them has a label out of range.

        One all-gather of three integers a rank, read by the host.
        """
        lowest, highest = labels_n.aminmax() if len(labels_n) else (labels_n.new_tensor(0), labels_n.new_tensor(0))
        mine = torch.stack([labels_n.new_tensor(len(labels_n)), lowest, highest])
        rows = self.world.all_gather(mine).tolist()
        for rank, (_, low, high) in enumerate(rows):
            wrong = low if low < 0 else high
            if not 0 <= wrong < self.num_classes:
                raise ValueError(
                    f"label {wrong} on rank {rank} is out of range: "
                    f"expected 0 <= label < num_classes={self.num_classes}"
                )
        if not any(count for count, _, _ in rows):
            raise ValueError("the global batch is empty: expected at least one row on some rank")
        return [count for count, _, _ in rows]


class _CosineLoss(torch.autograd.Function):
    """Forward asks the objective; backward makes the slopes, block by block, and both gradients from them."""

    @staticmethod
    def forward(
        ctx: Any, embeddings_nD: Tensor, weight_cD: Tensor, labels_n: Tensor, counts: list[int], head: ShardedClassifier
    ) -> Tensor:
        world = head.world
        unit_nD, norm_n1 = cosine.unit_rows(embeddings_nD.to(_product_dtype(embeddings_nD, weight_cD)))
        labels_N = world.gather_rows(labels_n, counts)
        sweep = Sweep(
            world,
            head.num_classes,
            head.shard,
            weight_cD,
            world.gather_rows(unit_nD, counts),
            labels_N,
            _drawn_columns(head, labels_N),
            head.block_classes,
        )
        cosines = sweep.cosines()
        slopes: Slopes = head.objective(cosines)
        loss = slopes.loss_N.mean()
        if head.training:
            head.steps += 1
        head.statistics = {"loss": loss, "median_target_angle": cosines.median_target_angle, **slopes.figures}
        ctx.head, ctx.sweep, ctx.slopes = head, sweep, slopes
        ctx.unit, ctx.norm, ctx.counts = unit_nD, norm_n1, counts
        ctx.training, ctx.row_updates = head.training, head._row_updates
        ctx.save_for_backward(weight_cD)
        ctx.embeddings_dtype = embeddings_nD.dtype
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        head: ShardedClassifier = ctx.head
        sweep: Sweep = ctx.sweep
        size = len(sweep.unit_ND)
        if head.row_optimizer is not None and ctx.row_updates != head._row_updates:
            # Counted, because a rank without classes has no rows whose change torch could notice: it would hang.
            raise RuntimeError("the row optimizer has moved the class rows since this forward: backward runs once")
        (weight_cD,) = ctx.saved_tensors  # refuses rows that changed since forward
        weight_grad_cD: Tensor | None = None
        if not ctx.needs_input_grad[1] or (head.row_optimizer is not None and not ctx.training):

            def use_gradient(columns: slice | Tensor, grad_bD: Tensor) -> None:
                """Frozen rows, or an evaluation: only the embeddings have a gradient."""
        elif head.row_optimizer is not None:
            optimizer, rows_cD = head.row_optimizer, weight_cD.detach()
            head._row_updates += 1

            def use_gradient(columns: slice | Tensor, grad_bD: Tensor) -> None:
                optimizer.update(rows_cD, columns, grad_bD)
        else:
            weight_grad_cD = torch.zeros_like(weight_cD)

            def use_gradient(columns: slice | Tensor, grad_bD: Tensor) -> None:
                weight_grad_cD[columns] = (grad_bD / size).to(weight_grad_cD.dtype)

        with torch.autocast(sweep.unit_ND.device.type, enabled=False):
            grad_ND = sweep.gradients(ctx.slopes, grad_outputs[0], use_gradient)
        grad_nD = head.world.scatter_sum_rows(grad_ND / size, ctx.counts)
        grad_nD = cosine.tangent_gradient(grad_nD, ctx.unit, ctx.norm)
        return grad_nD.to(ctx.embeddings_dtype), weight_grad_cD, None, None, None


def _product_dtype(embeddings: Tensor, weight: Tensor) -> torch.dtype:
    """Products run in bfloat16 only where embeddings and rows both are; statistics are float32 at least."""
    return torch.promote_types(embeddings.dtype, weight.dtype)


def _drawn_columns(head: ShardedClassifier, labels_N: Tensor) -> Tensor | None:
    """The columns that take part in this step, or None for all: the batch's own and the drawn."""
    if head.sample_rate == 1.0 or not head.training:
        return None
    drawn = drawn_classes(head.shard, head.sample_rate, head.seed, head.steps).to(labels_N.device)
    _, targets = owned_targets(labels_N, head.shard)
    columns: Tensor = torch.unique(torch.cat([drawn - head.shard.start, targets]))
    return columns
