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

from partial_fc import late_answer
from partial_fc.cosine_loss import CosineLoss, Moved, Rows, Step, frozen, kept
from partial_fc.functional import cosine
from partial_fc.labels import LabelCheck, agreed_counts, checked_counts
from partial_fc.objectives import Objective
from partial_fc.rows.known_rows import KnownRows
from partial_fc.rows.optimizers import RowOptimizer
from partial_fc.rows.sampling import drawn_columns, initial_rows, padded_columns
from partial_fc.rows.sharding import class_range, owned_targets
from partial_fc.scratch import Scratch
from partial_fc.sweeps.gram_sweep import GramSweep
from partial_fc.sweeps.narrowed_sweep import NarrowedSweep
from partial_fc.sweeps.near_sweep import NearSweep
from partial_fc.sweeps.sweep import Sweep
from partial_fc.world import World, current_world

WHERE = ("auto", "always", "never")
WORDS = {"cosines": ("recompute", "keep", "auto"), "gram": WHERE, "near": WHERE}
KEPT_SHARE = 0.05  # of the bytes of weights and row state, that "auto" spends on kept cosines


class ShardedClassifier(nn.Module):
    """A cosine classifier of ``num_classes`` whose rows are dealt out over the ranks of ``world``.

    ``loss = head(embeddings, labels)`` takes this rank's ``(n, D)`` embeddings and ``(n,)`` int64 labels, and is the
    objective's mean over the *global* batch, the same on every rank. ``loss.backward()`` fills the embeddings' gradient
    with this rank's part of that of the mean: SUM the backbone's replicas (:func:`partial_fc.sum_gradients`), never
    average them. ``n`` may differ between ranks and steps, and be 0.

    ``docs/classifier.md`` tells what each option costs and which of them change results.

    - ``weight``: this rank's rows ``(c, D)``, a Parameter. Cosines are of the *normalised* rows whatever their length.
      The first rows are a function of (``seed``, class id) only. ``shard`` is the ``range`` of class ids held here.
    - ``row_optimizer``: updates the rows inside ``backward``, block by block, and keeps them at unit length;
      ``weight.grad`` stays None. Call ``backward`` once per forward. Change rows in place under ``torch.no_grad()`` or
      load them, not through ``weight.data``, which hides the change from what is known of the rows. Without a row
      optimizer ``weight.grad`` is filled, for any torch optimizer.
    - ``sample_rate`` < 1 draws classes for a training step (Partial FC, 2203.15565): those of the batch, and each
      other class with this probability, by (``seed``, step, class id). Only drawn rows are changed.
    - ``block_classes``: the width of a block; by default what keeps a block's cosines in the cache.
    - ``product_dtype``: of the large products; sums, targets, statistics and updates are float32 at least. By default
      that of embeddings and weight.
    - ``weight_dtype``: ``torch.bfloat16`` halves the rows; updates round them stochastically.
    - ``cosines``: ``"recompute"`` makes the cosines of a softmax anew in each sweep, and the near road's int8 rows in
      each step; ``"keep"`` spends N·c numbers of ``product_dtype``; ``"auto"`` keeps as many as a twentieth of the
      bytes of weights and state holds. The results are bitwise equal.
    - ``gram``: whether P2SGrad, which is quadratic in the cosines, goes by Gram matrices; ``"auto"``: where that is the
      shorter way, for N > 3D/8.
    - ``near``: whether P2SGrad beyond chance goes by one look at all classes; ``"auto"``: on a CPU; ``"always"``: on a
      GPU too, where the host then waits for the device once a step.
    - ``statistics``: the last step's figures as tensors: ``loss``, ``median_target_angle`` (radians), the objective's.

    Communication of a step: two all-gathers (embeddings and labels, N·(D+2) words) and one of a number where ``counts``
    are not given; one all-reduce of 2·N floats (beyond chance 3·N), for targets and sums, and one of N for each further
    sum (AdaCos on current statistics has one); one reduce-scatter of N·D, which the Gram form hides behind its sweep.

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
        near: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_classes < 2 or embedding_dim < 1:
            raise ValueError(f"got num_classes={num_classes}, embedding_dim={embedding_dim}: expected >= 2 and >= 1")
        if not 0.0 < sample_rate <= 1.0:
            raise ValueError(f"sample_rate={sample_rate}: expected 0 < sample_rate <= 1")
        if block_classes is not None and block_classes < 1:
            raise ValueError(f"block_classes={block_classes}: expected at least 1, or None")
        for name, word in (("cosines", cosines), ("gram", gram), ("near", near)):
            if word not in WORDS[name]:
                raise ValueError(f"{name}={word!r}: expected one of {', '.join(WORDS[name])}")
        objective.refuse_unfit(num_classes, embedding_dim)
        self.num_classes = num_classes
        self.embedding_dim = embedding_dim
        self.objective = objective
        self.world = current_world() if world is None else world
        self.sample_rate = sample_rate
        self.block_classes = block_classes
        self.row_optimizer = row_optimizer
        self.product_dtype = product_dtype
        self.cosines = cosines
        self.gram = gram
        self.near = near
        self.seed = seed
        self.steps = 0
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
        waits for the answer. With them no step on a GPU waits for the device, unless ``near`` asks for it: a label out
        of range then makes this loss NaN, and :meth:`refuse_bad_labels`, which the next forward calls, names it. A loss
        that is not finite moves no row, and changes no state of the row optimizer.
        """
        if embeddings.dim() != 2 or embeddings.shape[1] != self.embedding_dim or labels.shape != embeddings.shape[:1]:
            raise ValueError(
                f"got embeddings {tuple(embeddings.shape)} and labels {tuple(labels.shape)}: "
                f"expected (n, {self.embedding_dim}) and (n,)"
            )
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(f"got labels of {labels.dtype}: expected torch.int64")
        self.refuse_bad_labels()
        checks_now = counts is None or not late_answer.is_known_late(labels)
        counts = agreed_counts(labels, self.world) if counts is None else checked_counts(counts, labels, self.world)
        labels_N = self.world.gather_rows(labels.long(), counts)
        self._label_check.check(labels_N, counts)
        if checks_now:
            self.refuse_bad_labels()
        # Under autocast the products of forward would run in half precision and those of backward would not.
        with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
            step = self._step(embeddings, labels_N, counts)
        loss: Tensor = CosineLoss.apply(embeddings, self.weight, step)  # type: ignore[no-untyped-call]
        return loss

    def refuse_bad_labels(self) -> None:
        """Raise ValueError if the last batch held a label out of range, with its value. Waits for the device."""
        self._label_check.raise_if_bad()

    def extra_repr(self) -> str:
        """The sizes, for ``print(head)``."""
        return f"num_classes={self.num_classes}, embedding_dim={self.embedding_dim}, shard={self.shard}"

    def get_extra_state(self) -> dict[str, int]:
        """The step count: with the seed it decides which classes are drawn."""
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take the step count up again."""
        self.steps = state["steps"]

    def _step(self, embeddings_nD: Tensor, labels_N: Tensor, counts: Sequence[int]) -> Step:
        """One step's forward pass: the sweep over this shard, and what the objective answers."""
        common = torch.promote_types(embeddings_nD.dtype, self.weight.dtype)
        wide = torch.promote_types(common, torch.float32)
        unit_nD, norm_n1 = cosine.unit_rows(self._label_check.masked(embeddings_nD.to(wide)))
        unit_ND = self.world.gather_rows(unit_nD, counts)
        sweep = self._sweep(unit_ND, labels_N, counts, self.product_dtype or common)
        cosines = sweep.cosines()
        slopes = self.objective(cosines)
        if self.training:
            self.steps += 1
        loss = slopes.loss_N.mean()
        self.statistics = {"loss": loss, "median_target_angle": cosines.median_target_angle, **slopes.figures}
        return Step(sweep, slopes, loss, unit_nD, norm_n1, self._rows(loss.isfinite()))

    def _rows(self, is_finite: Tensor) -> Rows:
        """What becomes of the class rows in the backward pass."""
        if not self.weight.requires_grad or (self.row_optimizer is not None and not self.training):
            return frozen
        return (
            kept if self.row_optimizer is None else Moved(self.row_optimizer, self._known_rows, self.steps, is_finite)
        )

    def _sweep(self, unit_ND: Tensor, labels_N: Tensor, counts: Sequence[int], product_dtype: torch.dtype) -> Sweep:
        """The way through this shard's classes that costs least."""
        moves = self.row_optimizer is not None and self.training and self.weight.requires_grad
        are_unit, gram_DD, int8 = self._known_rows.known(self.weight, may_retract=moves)
        common: dict[str, Any] = {
            "world": self.world,
            "num_classes": self.num_classes,
            "shard": self.shard,
            "rows_cD": self.weight.detach(),
            "are_unit": are_unit,
            "unit_ND": unit_ND,
            "labels_N": labels_N,
            "counts": counts,
            "product_dtype": product_dtype,
            **(drawn := self._drawn(labels_N)),
            "block_classes": self.block_classes,
            "scratch": self._scratch,
        }
        if self.objective.is_sparse and self.near != "never":
            if not late_answer.is_known_late(unit_ND):
                keep_int8 = self._known_rows.keep_int8 if moves and self.cosines != "recompute" else None
                return NearSweep(**common, kept_bytes=self._kept_bytes(), int8=int8, keep_int8=keep_int8)
            if self.near == "always":
                return NarrowedSweep(**common, kept_bytes=self._kept_bytes())
        if not self._goes_by_gram(*unit_ND.shape):
            return Sweep(**common, kept_bytes=self._kept_bytes())
        if gram_DD is not None and (drawn or gram_DD.dtype != unit_ND.dtype):
            gram_DD = None
        return GramSweep(**common, gram_DD=gram_DD, carries_gram=moves and not drawn)

    def _drawn(self, labels_N: Tensor) -> dict[str, Any]:
        """What a sweep is told of the columns that are looked at in this step; nothing where all are."""
        if self.sample_rate == 1.0 or not self.training:
            return {}
        draw = owned_targets(labels_N, self.shard), self.shard, self.sample_rate, self.seed, self.steps
        is_late = late_answer.is_known_late(labels_N)
        drawn = padded_columns(*draw, batch=len(labels_N)) if is_late else (drawn_columns(*draw), None)
        return {"columns": drawn[0], "takes_part": drawn[1], "sample_rate": self.sample_rate}

    def _goes_by_gram(self, batch: int, dim: int) -> bool:
        return self.objective.is_quadratic and (8 * batch > 3 * dim if self.gram == "auto" else self.gram == "always")

    def _kept_bytes(self) -> int:
        """How much memory kept cosines may take."""
        if self.cosines == "auto":
            state = () if self.row_optimizer is None else self.row_optimizer.buffers()
            return int(KEPT_SHARE * sum(tensor.nbytes for tensor in (self.weight, *state)))
        return sys.maxsize if self.cosines == "keep" else 0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ShardedClassifier:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._known_rows.forget()
        return self
