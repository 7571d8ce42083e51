"""What is planned against what is: memory, operations, traffic and collectives of real steps."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from simulation import on_ranks
from torch import Tensor

from benchmarks.memory import HighWaterMark
from partial_fc import AdaCos, CosFace, Objective, P2SGrad, RowAdamW, RowOptimizer, RowSGD, ShardedClassifier
from partial_fc.planning.backbone_cost import BackboneCost
from partial_fc.planning.collectives import backbone_collectives
from partial_fc.planning.head_cost import HeadCost
from partial_fc.planning.memory import most_classes, rank_memory
from partial_fc.planning.planned_head import HeadSpec
from partial_fc.planning.rates import H100
from partial_fc.planning.step_time import step_time
from partial_fc.planning.tensor_costs import TensorCosts
from partial_fc.world import World

OBJECTIVES: dict[str, Callable[[int], Objective]] = {
    "adacos": AdaCos,
    "cosface": lambda classes: CosFace(),
    "p2sgrad": lambda classes: P2SGrad(),
    "beyond": lambda classes: P2SGrad(negatives="beyond_chance"),
}
QUADRATIC = OBJECTIVES["p2sgrad"]


def momentum_sgd() -> RowOptimizer:
    return RowSGD(0.01, momentum=0.9)


@dataclass(frozen=True)
class Case:
    objective: str
    optimizer: str
    state: str = "float32"
    weights: str = "float32"
    products: str = "float32"
    rate: float = 1.0
    cosines: str = "auto"
    blocks: int | None = None

    def row_optimizer(self) -> RowOptimizer:
        state = getattr(torch, self.state)
        if self.optimizer == "adamw":
            return RowAdamW(0.01, state_dtype=state)
        return RowSGD(0.01, momentum=0.9 * (self.optimizer == "momentum"), state_dtype=state)

    def head(self, classes: int, dim: int, world: World | None = None) -> ShardedClassifier:
        return ShardedClassifier(
            classes,
            dim,
            OBJECTIVES[self.objective](classes),
            world=World() if world is None else world,
            sample_rate=self.rate,
            block_classes=self.blocks,
            row_optimizer=self.row_optimizer(),
            product_dtype=torch.bfloat16 if self.products == "bfloat16" else None,
            weight_dtype=getattr(torch, self.weights),
            cosines=self.cosines,
        )

    def cost(self, dim: int) -> HeadCost:
        return HeadCost(
            HeadSpec(
                dim,
                OBJECTIVES[self.objective],
                self.row_optimizer,
                sample_rate=self.rate,
                block_classes=self.blocks,
                products=self.products,
                weight_dtype=getattr(torch, self.weights),
                cosines=self.cosines,
                on_gpu=False,
            )
        )


CASES = [
    Case("adacos", "sgd"),
    Case("adacos", "momentum", cosines="keep"),
    Case("adacos", "momentum", blocks=100),  # keeps the cosines of some blocks
    Case("adacos", "momentum", products="bfloat16", cosines="keep"),
    Case("cosface", "adamw", products="bfloat16"),
    Case("cosface", "momentum", rate=0.1),
    Case("adacos", "momentum", state="bfloat16", products="bfloat16"),
    Case("adacos", "adamw", state="bfloat16", weights="bfloat16"),
    Case("adacos", "adamw", state="bfloat16", weights="bfloat16", products="bfloat16", rate=0.1),
    Case("p2sgrad", "momentum"),
    Case("p2sgrad", "adamw", products="bfloat16"),
    Case("p2sgrad", "momentum", state="bfloat16", weights="bfloat16"),
    Case("p2sgrad", "adamw", rate=0.1),
]


def steps(head: ShardedClassifier, batch: int, number: int = 2) -> None:
    for _ in range(number):
        rows = torch.nn.functional.normalize(torch.randn(batch, head.embedding_dim)).requires_grad_()
        head(rows, torch.randint(head.num_classes, (batch,)), [batch]).backward()


# Counted


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_plan_is_what_the_operators_of_real_steps_cost(case: Case) -> None:
    classes, dim, batch = 6_000, 64, 256
    costs = TensorCosts()
    with costs:
        head = case.head(classes, dim)
        steps(head, batch, 1)
        costs.operations = costs.traffic_bytes = 0
        steps(head, batch, 1)
    planned, step = case.cost(dim).memory_bytes(classes, batch, 1), case.cost(dim).step(classes, batch, 1)
    assert head.row_optimizer is not None
    assert planned["class rows"] == head.weight.nbytes
    assert planned["row optimizer state"] == sum(state.nbytes for state in head.row_optimizer.buffers())
    assert sum(planned.values()) == pytest.approx(costs.peak_bytes, rel=0.05)
    assert step.operations == pytest.approx(costs.operations, rel=0.03)
    assert step.traffic_bytes == pytest.approx(costs.traffic_bytes, rel=0.15)


@pytest.mark.parametrize("objective", ["adacos", "cosface"])
def test_a_gpu_does_the_same_products_and_moves_less_memory_where_cosines_are_made(objective: str) -> None:
    spec = HeadSpec(64, OBJECTIVES[objective], momentum_sgd, block_classes=1000)
    gpu, cpu = (HeadCost(replace(spec, on_gpu=on_gpu)).step(10_000, 256, 4) for on_gpu in (True, False))
    assert gpu.operations == cpu.operations
    assert gpu.traffic_bytes < 0.9 * cpu.traffic_bytes
    assert not torch.empty(1).is_cuda


def test_a_loss_beyond_chance_is_planned_by_the_road_that_reads_every_class() -> None:
    """Who is near is known to a training alone: the plan is the most that a step can cost."""
    beyond, softmax = (
        HeadCost(HeadSpec(64, make, momentum_sgd)).step(10_000, 256, 4)
        for make in (lambda classes: P2SGrad(negatives="beyond_chance"), OBJECTIVES["cosface"])
    )
    assert beyond.operations == pytest.approx(softmax.operations, rel=0.01)


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_rows_kept_in_int8_are_planned_for_a_cpu_that_multiplies_them(weights: str) -> None:
    case = Case("beyond", "momentum", weights=weights)
    head = case.head(600, 64)
    steps(head, 20)
    kept = head._known_rows.known(head.weight, may_retract=False).int8
    kept_bytes = 0 if kept is None else sum(part.nbytes for part in kept)
    assert case.cost(64).memory_bytes(600, 20, 1).get("class rows in int8", 0) == kept_bytes
    assert (kept is None) != torch.cpu._is_vnni_supported()
    spec = HeadSpec(64, OBJECTIVES["beyond"], momentum_sgd, on_gpu=False)
    for other in (replace(spec, near="never"), replace(spec, cosines="recompute")):
        assert "class rows in int8" not in HeadCost(other).memory_bytes(600, 20, 1)


# Measured

M_MMAP_THRESHOLD = -3  # of malloc.h


def measured_peak_bytes(case: Case, classes: int, dim: int, batch: int) -> int:
    """What the kernel saw of two steps above their start, in this process; what is loaded but once came before.

    glibc gives large blocks back when they are freed. By its own habit it stops that once it has seen some, and holes
    in its heap then add up to a fifth.
    """
    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)
    steps(case.head(512, dim), batch)
    gauge = HighWaterMark()
    start_bytes = gauge.now_bytes()
    gauge.begin()
    steps(case.head(classes, dim), batch)
    return gauge.peak_bytes() - start_bytes


@pytest.mark.processes
@pytest.mark.parametrize(
    "case",
    [
        Case("adacos", "momentum", rate=0.1),
        Case("adacos", "adamw", products="bfloat16"),
        Case("adacos", "momentum", state="bfloat16", weights="bfloat16"),
        Case("p2sgrad", "momentum"),
        Case("p2sgrad", "adamw", state="bfloat16"),
    ],
    ids=str,
)
def test_the_plan_is_what_the_kernel_says_within_15_percent(case: Case) -> None:
    classes, dim, batch = 40_000, 128, 256
    try:
        HighWaterMark()
    except OSError as error:
        pytest.skip(f"this kernel does not tell a peak: {error}")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["partial_fc", "benchmarks.memory"])
    with context.Pool(1) as pool:
        measured = pool.apply(measured_peak_bytes, (case, classes, dim, batch))
    assert sum(case.cost(dim).memory_bytes(classes, batch, 1).values()) == pytest.approx(measured, rel=0.15)


# Said


class Listening(World):
    """Another world, and the kind and bytes of all that is said in it: of what all have after it, or put in."""

    def __init__(self, world: World) -> None:
        self.world, self.rank, self.size = world, world.rank, world.size
        self.said: list[tuple[str, int]] = []

    def all_sum(self, tensor: Tensor) -> Tensor:
        self.said.append(("all-reduce", tensor.nbytes))
        return self.world.all_sum(tensor)

    def gather_rows(self, rows_n: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        rows_N = self.world.gather_rows(rows_n, counts)
        self.said.append(("all-gather", rows_N.nbytes))
        return rows_N

    def scatter_sum_rows(self, rows_N: Tensor, counts: Sequence[int]) -> Tensor:
        self.said.append(("reduce-scatter", rows_N.nbytes))
        return self.world.scatter_sum_rows(rows_N, counts)


@pytest.mark.parametrize(
    "case",
    [Case("adacos", "sgd"), Case("cosface", "momentum"), Case("p2sgrad", "sgd"), Case("adacos", "sgd", rate=0.3)],
    ids=str,
)
@pytest.mark.parametrize("size", [2, 3])
def test_the_collectives_are_those_of_a_real_step_to_the_byte(case: Case, size: int) -> None:
    classes, dim, share = 60, 8, 5

    def work(world: World) -> list[tuple[str, int]]:
        listening = Listening(world)
        rows = torch.randn(share, dim).requires_grad_()
        case.head(classes, dim, listening)(rows, torch.randint(classes, (share,)), [share] * size).backward()
        return listening.said

    planned = case.cost(dim).step(classes, share * size, size).collectives
    for said in on_ranks(size, work):
        for kind in ("all-gather", "all-reduce", "reduce-scatter"):
            heard = [number for what, number in said if what == kind]
            ours = [one for one in planned if one.kind == kind]
            assert (len(heard), sum(heard)) == (sum(one.count for one in ours), sum(one.total_bytes for one in ours))


def test_one_rank_waits_for_nobody_and_slow_links_are_waited_for() -> None:
    head, cost = HeadCost(HeadSpec(64, AdaCos, momentum_sgd)), tiny_backbone()
    slow = replace(H100, link_bytes=1e6, network_bytes=1e6)
    assert step_time(head, 100_000, cost, "float32", 64, 1, slow).communication == 0
    fast_seconds, slow_seconds = (
        step_time(head, 100_000, cost, "float32", 64, 4, rates).communication for rates in (H100, slow)
    )
    ddp = sum(one.seconds(4, slow) for one in backbone_collectives(cost.parameters))
    assert 0 < fast_seconds < 0.01 * slow_seconds
    assert slow_seconds > 0.9 * ddp


def test_a_ring_sends_its_share_once_and_twice_for_an_all_reduce() -> None:
    rates = replace(H100, link_bytes=1e9, network_bytes=1e8, latency_seconds=1e-3)
    scatter = HeadCost(HeadSpec(64, AdaCos, momentum_sgd)).step(1000, 1024, 4).collectives[-1]
    (reduce,) = backbone_collectives(250_000)
    assert scatter.seconds(4, rates) == pytest.approx(2e-3 + 4 * 1024 * 64 * 0.75 / 1e9)
    assert reduce.seconds(4, rates) == pytest.approx(2e-3 + 2 * 1e6 * 0.75 / 1e9)
    assert reduce.seconds(16, rates) == pytest.approx(4e-3 + 2 * 1e6 * 15 / 16 / 1e8)


# Fits


def tiny_backbone() -> BackboneCost:
    return BackboneCost(
        lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(400, 64)), 12, None
    )


@pytest.mark.parametrize("ranks", [1, 8, 1000])
@pytest.mark.parametrize(
    "spec", [HeadSpec(64, AdaCos, momentum_sgd), HeadSpec(64, QUADRATIC, momentum_sgd, sample_rate=0.1)]
)
def test_one_class_more_than_the_most_does_not_fit(spec: HeadSpec, ranks: int) -> None:
    head, cost, memory = HeadCost(spec), tiny_backbone(), 3 << 30

    def needed(classes: int) -> int:
        return sum(rank_memory(head, classes, cost, 1, 256, ranks, 1 << 30).values())

    most = most_classes(needed, memory)
    assert most > 100_000
    assert needed(most) <= memory < needed(most + 1)


def test_nothing_fits_where_the_reserve_takes_all() -> None:
    assert most_classes(lambda classes: 10 + classes, 11) == 0
    assert most_classes(lambda classes: 10 + classes, 12) == 2


def test_half_the_rows_and_state_lie_on_each_of_two_ranks() -> None:
    head = HeadCost(HeadSpec(512, AdaCos, lambda: RowAdamW(0.01, state_dtype=torch.bfloat16)))
    one, two = (head.memory_bytes(1_000_000, 512, ranks) for ranks in (1, 2))
    assert one["class rows"] == 2 * two["class rows"] == 1_000_000 * 512 * 4
    assert one["row optimizer state"] == 2 * two["row optimizer state"] == 1_000_000 * (2 * 512 * 2 + 4)
    name = "embeddings and their gradients"
    assert two[name] > one[name] - 3 * 4 * 512 * 512  # the gathered batch stands beside the rank's own
