"""A step whose results lie on a device: the host reads none of them before the update, and nothing bad is learnt.

The step runs on fake tensors, which have shapes and no values: whatever a host would wait for raises here. The
predicate that tells a GPU's tensors from a CPU's is patched, so that the GPU's branches run.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from simulation import as_on_a_gpu
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from partial_fc import (
    AdaCos,
    ArcFace,
    CosFace,
    Objective,
    P2SGrad,
    RowAdamW,
    RowOptimizer,
    RowSGD,
    ShardedClassifier,
    World,
    late_answer,
)
from partial_fc.divergence import LossCheck, TrainingDiverged
from partial_fc.rows import known_rows

N, C, D = 24, 40, 8
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "adacos": lambda: AdaCos(C),
    "adacos_previous": lambda: AdaCos(C, statistics="previous"),
    "arcface": ArcFace,
    "cosface": CosFace,
    "p2sgrad": P2SGrad,
    "beyond_chance": lambda: P2SGrad(negatives="beyond_chance"),
}
ROWS: dict[str, Callable[[], RowOptimizer]] = {
    "sgd": lambda: RowSGD(0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda: RowAdamW(0.01),
    "clipped": lambda: RowSGD(0.1, momentum=0.9, clip=0.3),
    "bfloat16": lambda: RowSGD(0.1, momentum=0.9, state_dtype=torch.bfloat16),
}
HOST_READS = (DataDependentOutputException, DynamicOutputShapeException)


class Unread:
    """An answer that is never looked at, as long as a step lasts."""

    def __init__(self, answer: Tensor) -> None:
        assert answer.shape == ()

    def read(self) -> bool:
        raise AssertionError("the host waited for the device")


@pytest.fixture
def _late(monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_gpu(monkeypatch)


class Training:
    """A network of one layer, its head, and the steps of the loop that concern them."""

    def __init__(self, objective: Objective, rows: RowOptimizer, sample_rate: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(3)
        self.layer = nn.Parameter(torch.randn(D, D, generator=generator))
        self.head = ShardedClassifier(
            C, D, objective, world=World(), row_optimizer=rows, sample_rate=sample_rate, near="never", seed=5
        )
        self.optimizer = torch.optim.SGD([self.layer], 0.1, momentum=0.9, weight_decay=0.1, fused=True)
        self.check = LossCheck(nn.Module(), self.head, self.optimizer)

    def step(self, number: int, images_ND: Tensor, labels_N: Tensor) -> Tensor:
        loss: Tensor = self.head(images_ND @ self.layer, labels_N, [N])
        minimised = self.check.to_minimise(loss, number)
        if minimised is None:
            return loss.detach()
        minimised.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([self.layer], 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def state(self) -> list[Tensor]:
        momentum = self.optimizer.state[self.layer].get("momentum_buffer")
        tensors = [self.layer, *self.head.parameters(), *self.head.buffers(), momentum]
        counted = self.head.objective.steps if isinstance(self.head.objective, AdaCos) else None  # a step all the same
        return [tensor.detach().clone() for tensor in tensors if tensor is not None and tensor is not counted]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert all(torch.equal(now, then) for now, then in zip(found, expected, strict=True))


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, D, generator=generator), torch.randint(C, (N,), generator=generator)


@pytest.mark.usefixtures("_late")
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("sample_rate", [1.0, 0.3])
def test_the_host_reads_nothing_of_a_step_before_its_update(
    sample_rate: float, objective: str, rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_answer, "LateAnswer", Unread)
    monkeypatch.setattr(known_rows, "_state", lambda weight: (0, 0))  # fake tensors have no address
    with FakeTensorMode(allow_non_fake_inputs=True):
        training = Training(OBJECTIVES[objective](), ROWS[rows](), sample_rate)
        loss = training.step(0, *batch(0))
        with pytest.raises(HOST_READS):
            loss.item()  # what a host read would meet
        with pytest.raises(AssertionError, match="the host waited"):
            training.check.settle()  # the answer is asked for at the next step, not in this one


@pytest.mark.usefixtures("_late")
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("bad", "sample_rate"), [("image", 1.0), ("label", 1.0), ("image", 0.3)])
def test_a_step_without_a_finite_loss_changes_no_state_and_is_named_a_step_later(
    objective: str, rows: str, bad: str, sample_rate: float
) -> None:
    training = Training(OBJECTIVES[objective](), ROWS[rows](), sample_rate)
    training.step(0, *batch(0))
    training.step(1, *batch(1))
    before = training.state()
    images_ND, labels_N = batch(2)
    if bad == "image":
        images_ND[3, 5] = math.nan
    else:
        labels_N[7] = C
    training.step(2, images_ND, labels_N)
    assert_same(training.state(), before)
    expected = (TrainingDiverged, "the loss is nan at step 2") if bad == "image" else (ValueError, "label 40 on rank 0")
    with pytest.raises(expected[0], match=expected[1]):
        training.step(3, *batch(3))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_late_and_immediate_checks_train_the_same(objective: str, rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for late in (False, True):
        monkeypatch.setattr(late_answer, "is_known_late", lambda tensor, late=late: late)
        training = Training(OBJECTIVES[objective](), ROWS[rows]())
        for number in range(4):
            training.step(number, *batch(number))
        training.check.settle()
        states.append(training.state())
    assert_same(*states)


@pytest.mark.usefixtures("_late")
def test_an_optimizer_that_cannot_skip_on_the_device_waits_for_the_loss() -> None:
    training = Training(CosFace(), RowSGD(0.1))
    training.optimizer = torch.optim.SGD([training.layer], 0.1)
    training.check = LossCheck(nn.Module(), training.head, training.optimizer)
    before = training.state()
    images_ND, labels_N = batch(0)
    with pytest.raises(TrainingDiverged, match="at step 0"):
        training.step(0, images_ND * math.nan, labels_N)
    assert_same(training.state(), before)
