"""What only a GPU can show of the classifier: its numbers, its silence towards the host, its memory, its checkpoints.

The same steps run on a CPU in float64 or beside it; `python -m benchmarks.gpu` runs these tests on a machine that has
a GPU. Their twins without one: test_host_reads.py (waits), test_classifier.py and test_objectives.py (numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from simulation import shares_left
from torch import Tensor, nn

from partial_fc import (
    AdaCos,
    ArcFace,
    CombinedMargin,
    CosFace,
    Objective,
    P2SGrad,
    RowAdamW,
    RowOptimizer,
    RowSGD,
    ShardedClassifier,
    World,
)
from partial_fc.checkpoint.layout import latest_checkpoint
from partial_fc.checkpoint.loading import load_training_state
from partial_fc.checkpoint.saving import Saver
from partial_fc.checkpoint.training_state import TrainingState
from partial_fc.divergence import LossCheck, TrainingDiverged
from partial_fc.evaluation import evaluate
from partial_fc.rows.sampling import drawn_columns, most_columns, padded_columns
from partial_fc.rows.sharding import owned_targets
from partial_fc.sweeps import narrowed_sweep
from partial_fc.sweeps.narrowed_sweep import NarrowedSweep, by_kernel
from partial_fc.world import ProcessGroupWorld

pytestmark = pytest.mark.gpu
N, C, D, STEPS = 48, 301, 32, 3
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "adacos": lambda: AdaCos(C),
    "adacos_previous": lambda: AdaCos(C, statistics="previous"),
    "arcface": lambda: ArcFace(32.0, 0.5),
    "combined_margin": lambda: CombinedMargin(32.0, 1.1, 0.2, 0.1, filter_above=0.4),
    "cosface": lambda: CosFace(32.0, 0.35),
    "p2sgrad": P2SGrad,
    "beyond_chance": lambda: P2SGrad(negatives="beyond_chance", chance_multiple=0.5),
}
ROWS: dict[str, Callable[[], RowOptimizer | None]] = {
    "torch": lambda: None,
    "sgd": lambda: RowSGD(0.05, momentum=0.9, weight_decay=0.01),
    "adamw": lambda: RowAdamW(0.01),
    "clipped": lambda: RowSGD(0.05, momentum=0.9, clip=0.3),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "narrow": {"block_classes": 37},
    "kept": {"block_classes": 37, "cosines": "keep"},
    "sampled": {"sample_rate": 0.3},
    "gram": {"gram": "always"},
}


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> Iterator[None]:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield
    torch.cuda.set_sync_debug_mode("default")


def batch(step: int, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    embeddings_ND = torch.randn(N, D, generator=generator, dtype=torch.float64).to(device, dtype)
    return embeddings_ND.requires_grad_(), torch.randint(C, (N,), generator=generator).to(device)


def trained(device: str, dtype: torch.dtype, objective: str, rows: str, **options: Any) -> list[Tensor]:
    """Losses, gradients and rows of some steps, on the CPU in float64."""
    head = ShardedClassifier(C, D, OBJECTIVES[objective](), world=World(), row_optimizer=ROWS[rows](), **options)
    head = head.to(device, dtype)
    found = []
    for step in range(STEPS):
        embeddings_ND, labels_N = batch(step, device, dtype)
        loss = head(embeddings_ND, labels_N, [N])
        loss.backward()
        found += [loss.detach(), embeddings_ND.grad]
        if head.weight.grad is not None:
            found.append(head.weight.grad)
            head.weight.grad = None
    return [tensor.double().cpu() for tensor in (*found, head.weight.detach()) if tensor is not None]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_gpu_in_float64_computes_what_a_cpu_does(objective: str, rows: str, options: str) -> None:
    if options == "gram" and objective != "p2sgrad":
        pytest.skip("the Gram form is P2SGrad's")
    there = trained("cuda", torch.float64, objective, rows, **OPTIONS[options])
    here = trained("cpu", torch.float64, objective, rows, **OPTIONS[options])
    for found, expected in zip(there, here, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bfloat16_products_on_a_gpu_are_no_less_exact_than_on_a_cpu(objective: str) -> None:
    exact = trained("cpu", torch.float64, objective, "torch")
    errors = []
    for device in ("cuda", "cpu"):
        found = trained(device, torch.float32, objective, "torch", product_dtype=torch.bfloat16)
        errors.append([float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)])
    for on_gpu, on_cpu in zip(*errors, strict=True):
        assert on_gpu <= 1.5 * on_cpu + 1e-3


class Training:
    """A layer, its head, and the steps of the loop that concern them, on the GPU."""

    def __init__(self, objective: str, rows: str, **options: Any) -> None:
        self.layer = nn.Linear(D, D, device="cuda")
        row_optimizer = ROWS[rows]()
        head = ShardedClassifier(C, D, OBJECTIVES[objective](), world=World(), row_optimizer=row_optimizer, **options)
        self.head = head.to("cuda")
        self.optimizer = torch.optim.SGD(self.layer.parameters(), 0.1, momentum=0.9, fused=True)
        self.check = LossCheck(self.layer, self.head, self.optimizer)

    def step(self, number: int, images_ND: Tensor, labels_N: Tensor) -> None:
        loss = self.head(self.layer(images_ND), labels_N, [N])
        minimised = self.check.to_minimise(loss, number)
        assert minimised is not None
        minimised.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.layer.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def weights(self) -> list[Tensor]:
        state = [tensor for tensor in self.head.state_dict().values() if isinstance(tensor, Tensor)]
        return [tensor.detach().clone() for tensor in (*self.layer.parameters(), *state)]


def after_warm_up(training: Training) -> list[tuple[int, tuple[Tensor, Tensor]]]:
    """Three steps and their batches that lie on the device, after three that compile."""
    batches = [(step, batch(step, "cuda", torch.float32)) for step in range(6)]
    for step, given in batches[:3]:
        training.step(step, *given)
    torch.cuda.synchronize()
    return batches[3:]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("rows", ["sgd", "adamw"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_step_waits_for_the_device(objective: str, rows: str, options: str) -> None:
    if options == "gram" and objective != "p2sgrad":
        pytest.skip("the Gram form is P2SGrad's")
    training = Training(objective, rows, product_dtype=torch.bfloat16, **OPTIONS[options])
    batches = after_warm_up(training)
    torch.cuda.set_sync_debug_mode("error")
    for step, given in batches:
        training.step(step, *given)


@pytest.mark.parametrize("rows", ["sgd", "adamw"])
@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_the_near_road_is_the_block_road_and_waits_once_a_step(
    rate: float, rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(narrowed_sweep, "MOST_FOUND", 1.0)
    left = shares_left(monkeypatch)
    found, expected = (
        trained("cuda", torch.float64, "beyond_chance", rows, near=near, sample_rate=rate, block_classes=37)
        for near in ("always", "never")
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    assert len(left) == STEPS
    assert max(left) < 1
    training = Training("beyond_chance", rows, product_dtype=torch.bfloat16, near="always", sample_rate=rate)
    batches = after_warm_up(training)
    torch.cuda.set_sync_debug_mode("warn")
    for step, given in batches:
        with pytest.warns(UserWarning, match="called a synchronizing CUDA operation") as waits:
            training.step(step, *given)
        assert len(waits) == 1


@pytest.mark.parametrize("classes", [1, 129, 5000])
def test_the_kernel_of_the_look_marks_what_plain_torch_does(classes: int) -> None:
    pytest.importorskip("triton")
    for batch, dim in ((512, 512), (3, 70)):
        unit_ND, rows_cD = (nn.functional.normalize(torch.randn(n, dim, device="cuda")) for n in (batch, classes))
        rows_cD[classes // 2] = torch.nan
        labels_N, shard = torch.zeros(batch, dtype=torch.int64, device="cuda"), range(classes)
        sweep = NarrowedSweep(World(), classes, shard, rows_cD, True, unit_ND, labels_N, [batch], torch.bfloat16)
        least, factor_ND = 0.15, unit_ND.bfloat16()
        found_c, expected_c = by_kernel(sweep, factor_ND, least), sweep.reached_by_blocks(factor_ND, least)
        highest_c = (rows_cD.bfloat16().double() @ factor_ND.double().T).amax(1)
        assert ((found_c == expected_c) | ((highest_c - least).abs() < 1e-5)).all(), "sums differ in their last digits"
        assert found_c[classes // 2]


@pytest.mark.parametrize("rows", ["sgd", "adamw"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_loss_that_is_not_finite_changes_no_weight_and_is_named_a_step_later(objective: str, rows: str) -> None:
    training = Training(objective, rows)
    training.step(0, *batch(0, "cuda", torch.float32))
    before = training.weights()
    images_ND, labels_N = batch(1, "cuda", torch.float32)
    training.step(1, images_ND.detach() * torch.nan, labels_N)
    steps = training.head.objective.steps if isinstance(training.head.objective, AdaCos) else None
    for now, then in zip(training.weights(), before, strict=True):
        assert torch.equal(now, then) or (steps is not None and now.shape == ()), "only AdaCos' count of steps goes on"
    with pytest.raises(TrainingDiverged, match="at step 1"):
        training.step(2, *batch(2, "cuda", torch.float32))


def test_two_runs_in_the_gram_form_are_bitwise_equal_with_classes_many_times_in_a_batch() -> None:
    given = [(torch.randn(2048, 256, device="cuda"), torch.randint(64, (2048,), device="cuda")) for _ in range(5)]
    runs = []
    for _ in range(2):
        head = ShardedClassifier(
            64, 256, P2SGrad(), world=World(), row_optimizer=RowSGD(0.05, 0.9), gram="always"
        ).cuda()
        for embeddings_ND, labels_N in given:
            head(embeddings_ND.requires_grad_(), labels_N, [2048]).backward()
        runs.append(head.weight.detach())
    assert torch.equal(*runs)


def test_a_gpu_draws_the_classes_that_a_cpu_draws() -> None:
    labels_N, shard = torch.randint(5000, (N,)).repeat(2), range(7, 5000)  # classes twice: the draw is of any of them
    expected = drawn_columns(owned_targets(labels_N, shard), shard, 0.2, 5, 3)
    targets = owned_targets(labels_N.cuda(), shard)
    assert torch.equal(drawn_columns(targets, shard, 0.2, 5, 3).cpu(), expected)
    columns, take_part = padded_columns(targets, shard, 0.2, 5, 3, batch=len(labels_N))
    assert len(columns) == most_columns(len(shard), 0.2, len(labels_N)) < len(shard)
    assert torch.equal(columns[take_part].cpu(), expected)
    assert (columns.diff() > 0).all()


def test_a_head_saved_on_a_gpu_goes_on_on_a_cpu(tmp_path: Path) -> None:
    heads = [
        ShardedClassifier(C, D, AdaCos(C), world=World(), row_optimizer=RowSGD(0.05, 0.9)).to(device)
        for device in ("cuda", "cpu")
    ]
    heads[0](*batch(0, "cuda", torch.float32), [N]).backward()
    network = nn.Linear(2, 2, device="cuda")
    state = TrainingState(network, heads[0], torch.optim.SGD(network.parameters(), 0.1), World())
    saver = Saver(tmp_path, state, {})
    saver.save(1)
    saver.wait()
    network = nn.Linear(2, 2)
    state = TrainingState(network, heads[1], torch.optim.SGD(network.parameters(), 0.1), World())
    load_training_state(latest_checkpoint(tmp_path), state, seed=0)
    losses = [heads[k](*batch(1, device, torch.float32), [N]) for k, device in enumerate(("cuda", "cpu"))]
    torch.testing.assert_close(losses[0].cpu(), losses[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("in_background", [True, False])
def test_a_save_of_a_gpu_writes_the_state_into_files_of_no_device(tmp_path: Path, in_background: bool) -> None:
    head = ShardedClassifier(C, D, AdaCos(C), world=World(), row_optimizer=RowSGD(0.05, 0.9)).cuda()
    network = nn.Conv2d(3, 8, 3, device="cuda")
    network.weight.data = network.weight.detach().contiguous(memory_format=torch.channels_last)
    state = TrainingState(network, head, torch.optim.SGD(network.parameters(), 0.1), World())
    saver = Saver(tmp_path, state, {}, in_background=in_background)
    assert saver.prepare() == in_background
    if in_background:
        assert saver._copies is not None
        assert all(copy.is_pinned() for copy in saver._copies({"row.weight": head.weight.detach()}).values())
    expected = head.weight.detach().cpu()
    saver.save(1)
    head.weight.data.add_(1)  # while it is written
    saver.wait()
    folder = latest_checkpoint(tmp_path)
    rows = load_file(folder / "rank-00000-of-00001.safetensors")["row.weight"]
    assert torch.equal(rows, expected)
    backbone = torch.load(folder / "backbone.pt", weights_only=True)
    assert backbone["weight"].device.type == "cpu"
    assert torch.equal(backbone["weight"], network.weight.detach().cpu())


def test_an_evaluation_on_a_gpu_has_the_figures_of_a_cpu() -> None:
    labels_N = torch.arange(60).repeat_interleave(5)
    unit_ND = nn.functional.normalize(torch.randn(60, D)[labels_N] + 0.8 * torch.randn(300, D))
    found, expected = (evaluate(unit_ND.to(device), labels_N.to(device), World()) for device in ("cuda", "cpu"))
    assert found.rank1 == expected.rank1
    assert found.eer == pytest.approx(expected.eer, abs=1e-4)
    assert found.tar_at_far == pytest.approx(expected.tar_at_far, abs=1e-3)


def test_a_group_of_one_over_nccl_takes_the_step_of_one_process(tmp_path: Path) -> None:
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    losses = []
    try:
        for world in (World(), ProcessGroupWorld()):
            head = ShardedClassifier(C, D, AdaCos(C), world=world, row_optimizer=RowSGD(0.05)).to("cuda")
            for step in range(STEPS):
                loss = head(*batch(step, "cuda", torch.float32), [N])
                loss.backward()
            losses.append(loss.item())
    finally:
        dist.destroy_process_group()
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
