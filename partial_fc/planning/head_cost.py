"""What the classifier costs a rank in a training step: the real step on fake tensors, for any number of classes."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from partial_fc.planning.collectives import Collective, PlannedWorld
from partial_fc.planning.planned_head import ExpectedAnswers, HeadSpec, PlannedHead, fake_tensors
from partial_fc.planning.tensor_costs import TensorCosts
from partial_fc.rows.sampling import most_columns
from partial_fc.rows.sharding import class_range
from partial_fc.world import World

_MANY_CLASSES = 1 << 20  # whose bytes tell those of one
_FEW_BLOCKS = 3  # of classes: the third costs what every further one does


@dataclass(frozen=True)
class HeadStep:
    """A step's cost on one rank: bytes by part, rows and their state apart, at its highest moment; work; collectives.

    - ``blocks``: what a sweep makes and drops, most of it for the block at hand.
    - ``embeddings``: the rank's own with their gradient, and the global batch's, as they are and as products take them.
    - ``statistics``: labels, losses, slopes of the targets; Gram matrices; which classes were drawn.
    """

    blocks: int
    kept_cosines: int
    embeddings: int
    statistics: int
    operations: int
    traffic_bytes: int
    collectives: tuple[Collective, ...]

    def plus(self, times: float, larger: HeadStep, smaller: HeadStep) -> HeadStep:
        """This step and ``times`` the difference of two others; the collectives are this one's."""
        names = [field.name for field in fields(self) if field.name != "collectives"]
        added = {name: times * (getattr(larger, name) - getattr(smaller, name)) for name in names}
        return replace(self, **{name: getattr(self, name) + round(number) for name, number in added.items()})


def planned_step(spec: HeadSpec, batch: int, ranks: int, classes: int, drawn: int, kept_bytes: int) -> HeadStep:
    """The step of a rank of ``ranks`` that holds ``classes``, of which ``drawn`` take part, for a global ``batch``.

    ``kept_bytes``: how much memory the cosines that are kept between sweeps may take.
    """
    counts, costs = [len(class_range(batch, rank, ranks)) for rank in range(ranks)], TensorCosts()
    with fake_tensors(on_gpu=spec.on_gpu, costs=costs), ExpectedAnswers(classes, drawn, ranks), costs:
        world = PlannedWorld(ranks, costs) if ranks > 1 else World()
        head = PlannedHead(spec, world, classes, batch, kept_bytes)
        costs.operations = costs.traffic_bytes = 0  # of making it
        embeddings_nD = torch.empty(counts[0], spec.embedding_dim).requires_grad_()
        labels_N = world.gather_rows(torch.zeros(counts[0], dtype=torch.int64), counts)
        step = head.step(embeddings_nD, labels_N, counts)
    sweep, slopes = step.sweep, step.slopes
    kept_cosines = kept_bytes - sweep.kept_bytes if head.makes_cosines else 0
    embeddings = _bytes(embeddings_nD, embeddings_nD.grad, step.unit_nD, sweep.unit_ND, sweep.factor_ND)
    statistics = _bytes(labels_N, slopes.loss_N, slopes.target_N, sweep.columns, sweep.takes_part, sweep.next_gram_DD)
    others = head.weight.nbytes + head.row_state_bytes + kept_cosines + embeddings + statistics
    return HeadStep(
        blocks=costs.peak_bytes - others,
        kept_cosines=kept_cosines,
        embeddings=embeddings,
        statistics=statistics,
        operations=costs.operations,
        traffic_bytes=costs.traffic_bytes,
        collectives=tuple(world.collectives.values()) if isinstance(world, PlannedWorld) else (),
    )


@dataclass(frozen=True)
class _Sizes:
    """Bytes of a class's row, also in int8, of its state and of its cosines that may be kept; a block's classes."""

    row: int
    in_int8: int
    state: int
    kept: int
    block_width: int


class HeadCost:
    """What the classifier costs the rank that holds most classes: memory, and a training step.

    A step is planned for a few blocks of classes. Every further block costs what the last of the few did, in memory
    (next to nothing) as in work; a part of a block costs its share.
    """

    def __init__(self, spec: HeadSpec) -> None:
        self.spec = spec
        self._planned_step = functools.cache(functools.partial(planned_step, spec))
        self._sizes = functools.cache(functools.partial(_sizes, spec))

    def memory_bytes(self, num_classes: int, batch: int, ranks: int) -> dict[str, int]:
        """By part, at the highest moment of a step of ``batch`` images on all ``ranks``; their sum is what it takes."""
        classes, sizes, step = -(-num_classes // ranks), self._sizes(batch), self.step(num_classes, batch, ranks)
        return {
            "class rows": classes * sizes.row,
            **({"class rows in int8": classes * sizes.in_int8} if sizes.in_int8 else {}),
            "row optimizer state": classes * sizes.state,
            "blocks": step.blocks,
            "kept cosines": step.kept_cosines,
            "embeddings and their gradients": step.embeddings,
            "statistics": step.statistics,
        }

    def class_bytes(self) -> int:
        """A class's row and its optimizer state: what a checkpoint holds of it."""
        sizes = self._sizes(1)
        return sizes.row + sizes.state

    def step(self, num_classes: int, batch: int, ranks: int) -> HeadStep:
        """One training step of ``batch`` images on all ``ranks``."""
        classes, sizes = -(-num_classes // ranks), self._sizes(batch)
        drawn_share = self._drawn_share(num_classes, classes, batch)
        blocks = classes * drawn_share / sizes.block_width
        kept_of_block = batch * sizes.block_width * (2 if self.spec.products == "bfloat16" else 4)
        kept = min(sizes.kept * classes // kept_of_block, math.ceil(blocks))

        def planned(some_blocks: int, kept_blocks: int) -> HeadStep:
            drawn = max(some_blocks * sizes.block_width, 1)
            some_classes = math.ceil(drawn / float(f"{drawn_share:.2g}"))  # rounded: other classes, the same step
            return self._planned_step(batch, ranks, some_classes, drawn, kept_blocks * kept_of_block)

        few = min(math.ceil(blocks), _FEW_BLOCKS)
        kept_of_few = few if kept >= blocks else min(kept, 1)
        step = planned(few, kept_of_few)
        step = step.plus(blocks - few, step, planned(few - 1, kept_of_few))
        if kept_of_few < kept < blocks:
            step = step.plus(float(kept - 1), planned(few, 2), planned(few, 1))
        return step

    def _drawn_share(self, num_classes: int, classes: int, batch: int) -> float:
        """Of a rank's ``classes``, how many a step looks at: on a CPU those drawn, on a GPU what is enough for them."""
        rate = self.spec.sample_rate
        if self.spec.on_gpu and rate < 1.0:
            return most_columns(classes, rate, batch) / classes
        return 1.0 - (1.0 - rate) * (1.0 - 1.0 / num_classes) ** batch


def _sizes(spec: HeadSpec, batch: int) -> _Sizes:
    with fake_tensors(on_gpu=spec.on_gpu, costs=TensorCosts()), ExpectedAnswers(_MANY_CLASSES, 1, 1):
        head = PlannedHead(spec, World(), _MANY_CLASSES, batch)
        sweep = head.sweep(batch)
        sizes = head.weight.nbytes, head.row_state_bytes, sweep.kept_bytes
        row, state, kept = (size // _MANY_CLASSES for size in sizes)
        return _Sizes(row, head.int8_bytes_of_row(), state, kept, sweep.block_width())


def _bytes(*tensors: Tensor | None) -> int:
    """Of all storages together, each once."""
    storages = [tensor.untyped_storage() for tensor in tensors if tensor is not None]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())
