"""How much memory a rank needs to train, by part, and how many classes fit: arithmetic, nothing is allocated.

Legend: ``N`` rows of the global batch, ``n`` a rank's; ``C`` all classes, ``c`` the largest rank's, ``m`` of these the
ones that take part in a step, ``b`` one block's; ``D`` dimensions. The formulas follow ``sweep.py``, ``gram_sweep.py``
and ``rows/optimizers.py`` tensor by tensor; ``test_planning.py`` holds them to what real steps take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from partial_fc.classifier import KEPT_SHARE
from partial_fc.gram_sweep import ROWS_ELEMENTS
from partial_fc.objectives import AdaCos, Objective
from partial_fc.planning.ledger import BackboneCost
from partial_fc.rows.sampling import HASHED_AT_ONCE
from partial_fc.sweep import CPU_BLOCK_ELEMENTS, GPU_BLOCK_ELEMENTS

_WIDE = 4  # bytes of float32, in which everything runs that is no product
_ROUNDING = 3.75  # blocks of float32 rows that rounded_to_bfloat16 holds at once
_HASHING = 5  # int64 tensors that the draw of classes holds at once
_STATISTICS = 25  # vectors of 8 bytes an image: labels, targets, cosines, sums in float64, losses, slopes
_SQUARES = 6  # D x D matrices of float32 at the moment when the Gram road has most of them
_MOST_CLASSES = 1 << 44


@dataclass(frozen=True)
class HeadJob:
    """What the cost of a step of :class:`~partial_fc.ShardedClassifier` depends on, its ranks apart.

    ``sums``: how often the objective sums over the other classes, 2 for AdaCos on current statistics, else 1.
    ``moments``: matrices of optimizer state, 1 for momentum, 2 for AdamW, else 0. ``products``: float32, tf32 or
    bfloat16. ``cosines`` and ``block_classes`` are the classifier's own options.
    """

    num_classes: int
    embedding_dim: int
    is_quadratic: bool = False
    sums: int = 1
    sample_rate: float = 1.0
    block_classes: int | None = None
    products: str = "float32"
    weight_dtype: torch.dtype = torch.float32
    state_dtype: torch.dtype = torch.float32
    moments: int = 0
    cosines: str = "auto"
    on_gpu: bool = True

    @property
    def product_bytes(self) -> int:
        """Of a number as the large products take it."""
        return 2 if self.products == "bfloat16" else _WIDE

    def shard_classes(self, ranks: int) -> int:
        """``c``: the classes of the rank that holds most."""
        return -(-self.num_classes // ranks)

    def drawn_classes(self, batch: int, ranks: int) -> int:
        """``m``: how many of them a step is expected to touch: the batch's own, and of the others each by chance."""
        missed = (1.0 - self.sample_rate) * (1.0 - 1.0 / self.num_classes) ** batch
        return math.ceil(self.shard_classes(ranks) * (1.0 - missed))

    def takes_gram_road(self, batch: int) -> bool:
        """Whether no cosines are made: see the classifier's ``gram="auto"``."""
        return self.is_quadratic and 8 * batch > 3 * self.embedding_dim

    def kept_classes(self, batch: int, ranks: int) -> int:
        """Of how many classes the first sweep's cosines are kept for the others: whole blocks, as the budget lasts."""
        if self.takes_gram_road(batch) or self.cosines == "recompute":
            return 0
        drawn, classes = self.drawn_classes(batch, ranks), self.shard_classes(ranks)
        if self.cosines == "keep":
            return drawn
        budget_bytes = int(KEPT_SHARE * (self.row_bytes(classes) + self.state_bytes(classes)))
        affordable = budget_bytes // (batch * self.product_bytes)
        width = min(self.block_width(batch), drawn)
        whole, rest = divmod(drawn, width)
        kept = min(whole, affordable // width) * width
        return kept + (rest if rest <= affordable - kept else 0)

    def row_bytes(self, classes: int) -> int:
        """The class rows themselves."""
        return classes * self.embedding_dim * self.weight_dtype.itemsize

    def state_bytes(self, classes: int) -> int:
        """The row optimizer's state; AdamW also counts each row's updates."""
        counts = 4 * classes if self.moments == 2 else 0
        return classes * self.embedding_dim * self.moments * self.state_dtype.itemsize + counts

    def block_width(self, batch: int) -> int:
        """``b``, as ``Sweep`` and ``GramSweep`` choose it."""
        if self.block_classes is not None:
            return self.block_classes
        if self.takes_gram_road(batch) and not self.on_gpu:
            return max(ROWS_ELEMENTS // self.embedding_dim, 64)
        elements = GPU_BLOCK_ELEMENTS if self.on_gpu else CPU_BLOCK_ELEMENTS
        return max(elements // max(batch, self.embedding_dim), 64)


def statistics_sums(objective: Objective) -> int:
    """How often ``objective`` sums over the other classes before it knows its slopes: sweeps, and all-reduces."""
    return 2 if isinstance(objective, AdaCos) and objective.dynamic and objective.statistics == "current" else 1


@dataclass(frozen=True)
class HeadMemory:
    """Bytes of the classifier on the rank that holds most classes, at the highest moment of a step."""

    rows: int
    row_state: int
    blocks: int
    kept_cosines: int
    embeddings: int
    statistics: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.rows + self.row_state + self.blocks + self.kept_cosines + self.embeddings + self.statistics


def head_memory(job: HeadJob, batch: int, ranks: int) -> HeadMemory:
    """What the classifier needs on one of ``ranks`` for a global batch of ``batch`` images, by part.

    - ``blocks``: buffers that the blocks of a sweep share, and what updating a block's rows takes for a moment.
    - ``embeddings``: the rank's own and the whole batch's, as products take them, and their gradients.
    - ``statistics``: a number or so per image each; Gram matrices; which classes were drawn.

    A step passes several high moments: the draw of classes, the targets, a block's update. Buffers stay from one to
    the next, so the largest of the passing parts counts, once.
    """
    classes, drawn = job.shard_classes(ranks), job.drawn_classes(batch, ranks)
    width = min(job.block_width(batch), drawn)
    kept = job.kept_classes(batch, ranks)
    dim = job.embedding_dim
    whole, own = _WIDE * batch * dim, _WIDE * -(-batch // ranks) * dim
    here = whole if job.on_gpu else own  # on a CPU only the targets that lie here are gathered
    held = 2 * own + (whole if ranks > 1 else 0) + (whole // 2 if job.product_bytes < _WIDE else 0)
    scratch, passing = _block_buffers(job, batch, width, some=kept > 0, all_kept=kept == drawn), _passing(job, width)
    if job.takes_gram_road(batch):
        held += whole  # G x̂
        moments = (2 * whole, 3 * here, 2 * whole + max(2 * here, passing))
        squares = _SQUARES * _WIDE * dim**2
    else:
        moments = (3 * here, whole + passing, whole + 3 * own)
        squares = 0
    drawing = (classes + 8 * drawn, 8 * _HASHING * min(classes, HASHED_AT_ONCE)) if job.sample_rate < 1 else (0, 0)
    gradients = max(whole, 3 * own)
    return HeadMemory(
        rows=job.row_bytes(classes),
        row_state=job.state_bytes(classes),
        blocks=scratch + max(*moments, drawing[1]) - gradients,
        kept_cosines=batch * kept * job.product_bytes,
        embeddings=held + gradients,
        statistics=8 * _STATISTICS * batch + squares + drawing[0],
    )


def _block_buffers(job: HeadJob, batch: int, width: int, *, some: bool, all_kept: bool) -> int:
    """The named buffers of ``Sweep`` and of the row optimizer, for blocks of ``width`` classes.

    ``some`` or ``all_kept``: of the cosines. On a GPU the compiled tangent has an output of its own for "products".
    """
    product, dim = job.product_bytes, job.embedding_dim
    narrow, sampled = product < _WIDE, job.sample_rate < 1
    row_buffers = _WIDE + product + (_WIDE + product) * narrow  # products, push; wide push, rows
    row_buffers += job.weight_dtype.itemsize * sampled  # gathered
    for dtype in (job.weight_dtype, *[job.state_dtype] * job.moments):  # rows and moments at hand for an update
        row_buffers += dtype.itemsize if sampled else 0 if dtype == torch.float32 else _WIDE
    buffers = width * dim * row_buffers
    if not job.takes_gram_road(batch):
        buffers += batch * dim * (product + _WIDE * narrow)  # pull, wide pull
        cosines = product * (not all_kept) + _WIDE * (narrow or some)
        buffers += batch * width * (cosines + product * narrow)  # and slopes
    return buffers


def _passing(job: HeadJob, width: int) -> int:
    """What a block's rows take for a moment, made and freed: normalising them, or updating them."""
    narrow_rows, narrow_state = job.weight_dtype != torch.float32, job.state_dtype != torch.float32
    sampled = job.sample_rate < 1  # drawn numbers are gathered as they are, then widened
    moment, rounding = float(sampled and narrow_state), _ROUNDING * narrow_state
    direction = (0.0, moment + rounding, 1.0 + 2 * moment + max(rounding, 2.0))[job.moments]
    update = float(sampled and narrow_rows) + max(direction, _ROUNDING * narrow_rows)
    if narrow_rows:
        update = max(3.0, 1.0 + update)  # unit rows in float32 beside it
    return int(update * _WIDE * width * job.embedding_dim)


def rank_memory(
    job: HeadJob, backbone: BackboneCost, backbone_moments: int, batch: int, ranks: int, reserve_bytes: int
) -> dict[str, int]:
    """Bytes on the rank that holds most classes, by part; their sum is what it needs.

    ``backbone_moments``: matrices of its optimizer's state, 1 for momentum, 2 for AdamW. Gradients are there all the
    time, as DDP's buckets; a decayed copy of them, in the optimizer's step, stands where the activations were.
    ``reserve_bytes`` is for all that is not counted here: the CUDA context, NCCL, cuDNN's workspaces, images on their
    way, fragmentation.
    """
    head = head_memory(job, batch, ranks)
    gradient_bytes = _WIDE * backbone.parameters
    return {
        "class rows": head.rows,
        "row optimizer state": head.row_state,
        "blocks": head.blocks,
        "kept cosines": head.kept_cosines,
        "embeddings and their gradients": head.embeddings,
        "statistics": head.statistics,
        "backbone weights": backbone.held_bytes,
        "backbone gradients (DDP buckets)": gradient_bytes,
        "backbone optimizer state": backbone_moments * gradient_bytes,
        "activations": max(backbone.activations_bytes(-(-batch // ranks)), gradient_bytes),
        "reserve": reserve_bytes,
    }


def most_classes(needed_bytes: Callable[[int], int], memory_bytes: int) -> int:
    """The largest ``C`` for which ``needed_bytes(C)``, which grows with it, is at most ``memory_bytes``; 0 if none."""
    fits, too_many = 0, _MOST_CLASSES
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if middle >= 2 and needed_bytes(middle) > memory_bytes:
            too_many = middle
        else:
            fits = middle
    return fits if fits >= 2 else 0
