"""The sharded classifier: gather the batch, sweep this shard's classes in blocks, send the gradients home.

Legend: ``N`` rows of the global batch, ``n`` this rank's; ``C`` all classes, ``c`` this rank's, ``b`` one block's;
``D`` dimensions. A ``class_id`` is global, a ``column`` local to the shard.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from partial_fc.functional import cosine
from partial_fc.gram_sweep import GramSweep
from partial_fc.labels import LabelCheck, agreed_counts, checked_counts
from partial_fc.objectives import Objective
from partial_fc.rows.known_rows import KnownRows
from partial_fc.rows.optimizers import RowOptimizer
from partial_fc.rows.sampling import drawn_columns, initial_rows
from partial_fc.rows.sharding import Columns, class_range, owned_targets
from partial_fc.scratch import Scratch
from partial_fc.slopes import Slopes
from partial_fc.sweep import Sweep
from partial_fc.world import World, current_world

COSINES = ("recompute", "keep", "auto")
GRAM_ROAD = ("auto", "always", "never")
KEPT_SHARE = 0.05  # of the bytes of weights and row state, that "auto" spends on kept cosines


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
      ``weight.grad`` stays None and no gradient of the weights' size exists: a step's peak is weights, optimizer state
      and one block. Call ``backward`` once per forward. Change rows in place under ``torch.no_grad()`` or load them,
      not through ``weight.data``: what is known of them is kept between steps, and ``.data`` hides a change.
    - ``shard``: the ``range`` of class ids held here. First rows are a function of (``seed``, class id) only.
    - ``sample_rate`` < 1 draws classes for a training step (Partial FC, 2203.15565): those of the batch, and of the
      others each with this probability, by (``seed``, step, class id). Only drawn rows are read and changed.
    - ``block_classes``: the width of a block; by default what keeps a block's cosines in the cache.
    - ``product_dtype``: of the large products; sums, targets, statistics and updates are float32 at least. By default
      that of embeddings and weight. ``torch.bfloat16`` is 2.5 times as fast on CPUs and GPUs that have it; float32 is
      TF32 where ``torch.set_float32_matmul_precision`` says so.
    - ``weight_dtype``: ``torch.bfloat16`` halves the rows; updates round them stochastically.
    - ``cosines``: a softmax needs them two or three times a step. ``"recompute"`` makes them anew; ``"keep"`` spends
      N·c numbers of ``product_dtype``; ``"auto"`` keeps as many as a twentieth of the bytes of weights and state
      holds. The results are the same to the bit.
    - ``gram``: losses that are quadratic in the cosines (P2SGrad) need none of them (``gram_sweep.py``). ``"auto"``
      goes that road where it is the shorter one, for N > 3D/8.
    - ``statistics``: the last step's figures as tensors: ``loss``, ``median_target_angle`` (radians), ``scale`` and
      ``scale_capped`` where the objective has them.

    Communication of a step: two all-gathers (the embeddings and labels, N·(D+2) words) and one of a number where
    ``counts`` are not given; one all-reduce of 2·N floats, for targets and sums, and one of N for each further sum (the
    dynamic AdaCos on current statistics has one); one reduce-scatter of N·D, which the Gram road hides behind its
    sweep.

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
        row_optimizer: RowOptimizer | None = None,
        product_dtype: torch.dtype | None = None,
        weight_dtype: torch.dtype = torch.float32,
        cosines: str = "auto",
        gram: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_classes < 2 or embedding_dim < 1:
            raise ValueError(f"got num_classes={num_classes}, embedding_dim={embedding_dim}: expected >= 2 and >= 1")
        if not 0.0 < sample_rate <= 1.0:
            raise ValueError(f"sample_rate={sample_rate}: expected 0 < sample_rate <= 1")
        if block_classes is not None and block_classes < 1:
            raise ValueError(f"block_classes={block_classes}: expected at least 1, or None")
        for name, word, words in (("cosines", cosines, COSINES), ("gram", gram, GRAM_ROAD)):
            if word not in words:
                raise ValueError(f"{name}={word!r}: expected one of {', '.join(words)}")
        self.num_classes = num_classes
        self.embedding_dim = embedding_dim
        self.objective = objective
        self.world = current_world() if world is None else world
        self.sample_rate = sample_rate
        self.block_classes = block_classes
        self.row_optimizer = row_optimizer
        self.product_dtype = product_dtype
        self.kept_cosines = cosines
        self.gram = gram
        self.seed = seed
        self.steps = 0
        self._row_updates = 0
        self._known_rows = KnownRows()
        self._label_check = LabelCheck(num_classes)
        self._scratch = Scratch()
        self.shard = class_range(num_classes, self.world.rank, self.world.size)
        self.weight = nn.Parameter(initial_rows(self.shard, embedding_dim, seed, dtype=weight_dtype))
        if row_optimizer is not None:
            row_optimizer.attach(self.weight.detach(), self.shard.start, seed)
        self.statistics = {}

    def forward(
        self, embeddings: Float[Tensor, "n D"], labels: Int[Tensor, " n"], counts: Sequence[int] | None = None
    ) -> Float[Tensor, ""]:
        """The mean loss of the global batch. In training mode a step is counted; in evaluation no state changes.

        ``counts``: every rank's ``n``, where the caller knows them. Without them the ranks ask each other, and the host
        waits for the answer. With them nothing of a step on a GPU waits for the device (but the draw of classes): a
        label out of range then makes this loss NaN, and is told of by :meth:`refuse_bad_labels`, which the next
        forward calls.
        """
        if embeddings.dim() != 2 or embeddings.shape[1] != self.embedding_dim or labels.shape != embeddings.shape[:1]:
            raise ValueError(
                f"got embeddings {tuple(embeddings.shape)} and labels {tuple(labels.shape)}: "
                f"expected (n, {self.embedding_dim}) and (n,)"
            )
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(f"got labels of {labels.dtype}: expected torch.int64")
        self.refuse_bad_labels()
        waits = counts is None or not labels.is_cuda
        counts = agreed_counts(labels, self.world) if counts is None else checked_counts(counts, labels, self.world)
        labels_N = self.world.gather_rows(labels.long(), counts)
        self._label_check.look(labels_N, counts)
        if waits:
            self.refuse_bad_labels()
        # Under autocast the products of forward would run in half precision and those of backward would not.
        with torch.autocast(embeddings.device.type, enabled=False):
            loss: Tensor = _CosineLoss.apply(  # type: ignore[no-untyped-call]
                embeddings, self.weight, labels_N, counts, self
            )
        return loss if waits else self._label_check.spoilt(loss)

    def refuse_bad_labels(self) -> None:
        """Raise ValueError if the last batch held a label out of range, with its value. Waits for the device."""
        self._label_check.refuse()

    def extra_repr(self) -> str:
        """The sizes, for ``print(head)``."""
        return f"num_classes={self.num_classes}, embedding_dim={self.embedding_dim}, shard={self.shard}"

    def get_extra_state(self) -> dict[str, int]:
        """The step count: with the seed it decides which classes are drawn."""
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take the step count up again."""
        self.steps = state["steps"]

    def _sweep(self, unit_ND: Tensor, labels_N: Tensor, product_dtype: torch.dtype) -> Sweep:
        """The way through this shard's classes that costs least."""
        are_unit, gram_DD = self._known_rows.look(self.weight, may_retract=self._moves_rows())
        columns = self._columns(labels_N)
        what = (self.world, self.num_classes, self.shard, self.weight.detach(), are_unit, unit_ND, labels_N)
        how = (product_dtype, columns, self.block_classes)
        if not self._takes_gram_road(*unit_ND.shape):
            return Sweep(*what, *how, kept_bytes=self._kept_bytes(), scratch=self._scratch)
        carries = self._moves_rows() and columns is None
        if gram_DD is not None and (columns is not None or gram_DD.dtype != unit_ND.dtype):
            gram_DD = None
        return GramSweep(*what, *how, scratch=self._scratch, gram_DD=gram_DD, carries_gram=carries)

    def _columns(self, labels_N: Tensor) -> Tensor | None:
        """The columns that take part in this step, or None for all."""
        if self.sample_rate == 1.0 or not self.training:
            return None
        return drawn_columns(owned_targets(labels_N, self.shard), self.shard, self.sample_rate, self.seed, self.steps)

    def _takes_gram_road(self, batch: int, dim: int) -> bool:
        if self.gram == "auto":
            return self.objective.is_quadratic and 8 * batch > 3 * dim
        return self.objective.is_quadratic and self.gram == "always"

    def _kept_bytes(self) -> int:
        """How much memory kept cosines may take."""
        if self.kept_cosines == "auto":
            state = () if self.row_optimizer is None else self.row_optimizer.buffers()
            return int(KEPT_SHARE * sum(tensor.nbytes for tensor in (self.weight, *state)))
        return sys.maxsize if self.kept_cosines == "keep" else 0

    def _moves_rows(self) -> bool:
        return self.row_optimizer is not None and self.training and self.weight.requires_grad

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ShardedClassifier:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._known_rows.forget()
        return self


class _CosineLoss(torch.autograd.Function):
    """Forward asks the objective; backward makes the slopes, block by block, and both gradients from them."""

    @staticmethod
    def forward(
        ctx: Any, embeddings_nD: Tensor, weight_cD: Tensor, labels_N: Tensor, counts: list[int], head: ShardedClassifier
    ) -> Tensor:
        common = torch.promote_types(embeddings_nD.dtype, weight_cD.dtype)
        wide = torch.promote_types(common, torch.float32)
        unit_nD, norm_n1 = cosine.unit_rows(embeddings_nD.to(wide))
        sweep = head._sweep(head.world.gather_rows(unit_nD, counts), labels_N, head.product_dtype or common)
        cosines = sweep.cosines()
        slopes: Slopes = head.objective(cosines)
        loss = slopes.loss_N.mean()
        if head.training:
            head.steps += 1
        head.statistics = {"loss": loss, "median_target_angle": cosines.median_target_angle, **slopes.figures}
        ctx.head, ctx.sweep, ctx.slopes = head, sweep, slopes
        ctx.unit, ctx.norm, ctx.counts = unit_nD, norm_n1, counts
        ctx.training, ctx.row_updates, ctx.step = head.training, head._row_updates, head.steps
        ctx.save_for_backward(weight_cD)
        ctx.embeddings_dtype = embeddings_nD.dtype
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        head: ShardedClassifier = ctx.head
        sweep: Sweep = ctx.sweep
        if head.row_optimizer is not None and ctx.row_updates != head._row_updates:
            # Counted, because a rank without classes has no rows whose change torch could notice: it would hang.
            raise RuntimeError("the row optimizer has moved the class rows since this forward: backward runs once")
        (weight_cD,) = ctx.saved_tensors  # refuses rows that changed since forward
        size = len(sweep.unit_ND)
        weight_grad_cD: Tensor | None = None
        moves_rows = False
        if not ctx.needs_input_grad[1] or (head.row_optimizer is not None and not ctx.training):

            def use_rows(columns: Columns, grad_bD: Tensor) -> None:
                """Frozen rows, or an evaluation: only the embeddings have a gradient."""
        elif head.row_optimizer is not None:
            optimizer, rows_cD = head.row_optimizer, weight_cD.detach()
            head._row_updates += 1
            moves_rows = True

            def use_rows(columns: Columns, grad_bD: Tensor) -> None:
                optimizer.update(rows_cD, columns, grad_bD, ctx.step)
        else:
            weight_grad_cD = torch.zeros_like(weight_cD)

            def use_rows(columns: Columns, grad_bD: Tensor) -> None:
                weight_grad_cD[columns] = (grad_bD / size).to(weight_grad_cD.dtype)

        on_the_way = []

        def send(grad_ND: Tensor) -> None:
            on_the_way.append(head.world.start_scatter_sum_rows(grad_ND.div_(size), ctx.counts))

        with torch.autocast(sweep.unit_ND.device.type, enabled=False):
            sweep.gradients(ctx.slopes, grad_outputs[0], use_rows, send)
        if moves_rows:
            head._known_rows.note(head.weight, sweep.next_gram_DD if isinstance(sweep, GramSweep) else None)
            ctx.sweep = ctx.slopes = None  # kept cosines would live until the loss does
        grad_nD = cosine.tangent_gradient(on_the_way[0](), ctx.unit, ctx.norm)
        return grad_nD.to(ctx.embeddings_dtype), weight_grad_cD, None, None, None
