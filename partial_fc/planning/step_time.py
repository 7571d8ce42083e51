"""What a step costs on any number of ranks: operations, memory traffic, collectives, and seconds at given rates.

Legend as in ``memory.py``; ``batch`` is the global one; an operation is an addition or a multiplication. Times are a
roofline taken one after the other: no launch of a kernel, no waiting for data, no straggler; every operator that is no
product, or on GPUs every fused chain of them in the classifier, reads and writes memory on its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from partial_fc.planning.ledger import BackboneCost
from partial_fc.planning.memory import HeadJob

BUCKET_BYTES = 25 << 20  # of DDP's gradients; the first is smaller
_FIRST_BUCKET_BYTES = 1 << 20
_BACKWARD_SHARE = 2 / 3  # of the time of a network or a head, behind which its gradient's collective hides
_GRAM_SHARE = 10 / 16  # of a symmetric product that functional/gram.py computes
_ROUNDED = 175  # bytes moved for a number that is read from bfloat16, changed and rounded back
_DRAWN = 600  # bytes moved for a class that is drawn or not: two hashes in int64
_GRAM_BATCH = 250  # bytes moved for a number of the batch's embeddings on the Gram road
_OPTIMIZER_BYTES = 64  # a parameter: norm, clipping, decay, momentum, step


@dataclass(frozen=True)
class Rates:
    """What a machine does, each per second: operations by kind of product, bytes of its memory, bytes of its links.

    ``link_bytes``: between the ranks of one machine; ``network_bytes``: between machines, of one machine's adapters
    together. Both as a ring has them, one way. A collective costs ``latency_seconds`` for each doubling of the ranks.
    """

    float32_operations: float
    tf32_operations: float
    bfloat16_operations: float
    memory_bytes: float
    link_bytes: float
    network_bytes: float
    latency_seconds: float
    ranks_per_machine: int

    def operations(self, products: str) -> float:
        """The rate of ``products``: float32, tf32 or bfloat16."""
        return float(getattr(self, f"{products}_operations"))


# ASSUMED, not measured: about two thirds of the data sheet's dense products of an H100 SXM (67, 494, 989 Tflop/s), five
# sixths of its memory's 3.35 TB/s, four fifths of NVLink's 450 GB/s and of eight 400 Gb/s adapters a machine.
H100 = Rates(
    float32_operations=45e12,
    tf32_operations=330e12,
    bfloat16_operations=650e12,
    memory_bytes=2.8e12,
    link_bytes=360e9,
    network_bytes=320e9,
    latency_seconds=10e-6,
    ranks_per_machine=8,
)


@dataclass(frozen=True)
class Collective:
    """``count`` calls of one kind in a step, which move ``total_bytes``: the size of what all ranks have after it.

    Of a reduce-scatter it is what each rank puts in. ``is_hidden``: it runs beside computing that does not need it.
    """

    what: str
    kind: str
    count: int
    total_bytes: int
    is_hidden: bool = False

    def seconds(self, ranks: int, rates: Rates) -> float:
        """By a ring: each rank sends its share of the bytes once, and twice for an all-reduce; 0 for one rank."""
        link_bytes = (
            rates.link_bytes if ranks <= rates.ranks_per_machine else min(rates.link_bytes, rates.network_bytes)
        )
        sent_bytes = self.total_bytes * (ranks - 1) / ranks * (2 if self.kind == "all-reduce" else 1)
        return self.count * rates.latency_seconds * math.ceil(math.log2(ranks)) + sent_bytes / link_bytes


def head_collectives(job: HeadJob, batch: int, ranks: int) -> Iterator[Collective]:
    """What the classifier says in a training step whose ranks know each other's counts; ``batch`` is padded evenly."""
    batch = ranks * -(-batch // ranks)
    floats = 4 * batch
    yield Collective("labels", "all-gather", 1, 8 * batch)
    yield Collective("embeddings", "all-gather", 1, floats * job.embedding_dim)
    if job.sample_rate < 1:
        yield Collective("number of drawn classes", "all-reduce", 1, 8)
    yield Collective("targets and sums", "all-reduce", job.sums, floats * (1 + job.sums))
    hidden = job.takes_gram_road(batch)
    yield Collective("embeddings' gradient", "reduce-scatter", 1, floats * job.embedding_dim, is_hidden=hidden)


def backbone_collectives(parameters: int) -> Iterator[Collective]:
    """DDP's buckets of float32 gradients, beside the backward pass."""
    gradient_bytes = 4 * parameters
    buckets = 1 + max(0, math.ceil((gradient_bytes - _FIRST_BUCKET_BYTES) / BUCKET_BYTES))
    yield Collective("backbone's gradient", "all-reduce", buckets, gradient_bytes, is_hidden=True)


def head_operations(job: HeadJob, batch: int, ranks: int) -> float:
    """Of the products of one rank: 2·N·m·D each for pull, push and every making of the cosines; or 3.25·m·D²"""
    drawn, dim = job.drawn_classes(batch, ranks), job.embedding_dim
    if job.takes_gram_road(batch):
        return 2.0 * drawn * dim**2 * (1 + _GRAM_SHARE) + 4.0 * batch * dim**2
    made = drawn + job.sums * (drawn - job.kept_classes(batch, ranks))
    return 2.0 * batch * dim * (made + 2 * drawn)


def head_traffic_bytes(job: HeadJob, batch: int, ranks: int) -> float:
    """What the operators of one rank that are no products read and write.

    Each on its own, except for the chains that ``fused_on_gpus`` makes one pass of on a GPU.
    """
    drawn = job.drawn_classes(batch, ranks)
    moved = float(drawn * job.embedding_dim * _row_traffic(job, job.takes_gram_road(batch)))
    if job.sample_rate < 1:
        moved += _DRAWN * job.shard_classes(ranks)
    if job.takes_gram_road(batch):
        return moved + _GRAM_BATCH * batch * job.embedding_dim
    narrow = job.product_bytes < 4
    sums, slopes = (12, 8) if job.on_gpu else (28, 32)  # scale, shift, exponential, sum; and gain instead of the sum
    moved += batch * drawn * (job.sums * sums + slopes + 6 * narrow)
    widened = drawn if narrow else job.kept_classes(batch, ranks)
    return moved + batch * widened * (job.sums + 1) * (6 if narrow else 8)


def _row_traffic(job: HeadJob, gram: bool) -> float:
    """Bytes moved for a number of the taking-part rows: normalising and rounding in each sweep, tangent, update."""
    sampled, wide = job.sample_rate < 1, job.weight_dtype == torch.float32
    rounded, normalised = 6 * (job.product_bytes < 4), 0 if wide else 18
    sweeps = (2 if sampled else 1) if gram else job.sums + 1
    moved = sweeps * (2.0 * job.weight_dtype.itemsize * sampled + rounded + normalised)
    moved += (16 if job.on_gpu else 28 + 8 * (not wide)) + 8 * (not gram) + rounded  # tangent; gain
    if gram and not sampled:
        moved += rounded + normalised  # the Gram matrix of the updated rows
    moved += (12 if job.on_gpu else 24) + (0 if wide else _ROUNDED) + 4 * job.weight_dtype.itemsize * sampled
    moment = 20 + (0 if job.state_dtype == torch.float32 else _ROUNDED) + 4 * job.state_dtype.itemsize * sampled
    return moved + job.moments * moment + (52 if job.moments == 2 else 0)


@dataclass(frozen=True)
class StepTime:
    """Seconds of a training step. Communication is what is left of it after what it is hidden behind."""

    backbone: float
    head: float
    communication: float

    @property
    def total(self) -> float:
        """One after the other."""
        return self.backbone + self.head + self.communication


def step_time(
    job: HeadJob, backbone: BackboneCost, backbone_products: str, batch: int, ranks: int, rates: Rates
) -> StepTime:
    """The seconds of a step of ``batch`` images on ``ranks``, by the rank that has most to do."""
    images = -(-batch // ranks)
    network = (
        backbone.operations(images) / rates.operations(backbone_products)
        + (backbone.traffic_bytes(images) + _OPTIMIZER_BYTES * backbone.parameters) / rates.memory_bytes
    )
    head = (
        head_operations(job, batch, ranks) / rates.operations(job.products)
        + head_traffic_bytes(job, batch, ranks) / rates.memory_bytes
    )
    waited = 0.0
    if ranks > 1:
        for spoken, behind in (
            (head_collectives(job, batch, ranks), _BACKWARD_SHARE * head),
            (backbone_collectives(backbone.parameters), _BACKWARD_SHARE * network),
        ):
            seconds = [(one.seconds(ranks, rates), one.is_hidden) for one in spoken]
            waited += sum(one for one, is_hidden in seconds if not is_hidden)
            waited += max(0.0, sum(one for one, is_hidden in seconds if is_hidden) - behind)
    return StepTime(network, head, waited)
