"""Steps whose loss is no good: skipped, counted, and ended when they are too many; known at once and a step later."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from partial_fc import (
    AdaCos,
    CosineSoftmax,
    Objective,
    RowAdamW,
    RowOptimizer,
    RowSGD,
    ShardedClassifier,
    World,
    late_answer,
)
from partial_fc.divergence import LossCheck, LossCourse, Tolerance, TrainingDiverged

N, C, D = 12, 20, 6
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "softmax": lambda: CosineSoftmax(8.0),
    "adacos": lambda: AdaCos(C),
    "adacos_previous": lambda: AdaCos(C, statistics="previous"),
}
ROWS: dict[str, Callable[[], RowOptimizer | None]] = {
    "sgd": lambda: RowSGD(0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda: RowAdamW(0.01),
    "clipped": lambda: RowSGD(0.1, momentum=0.9, clip=0.3),
    "torch": lambda: None,
}


@pytest.fixture(params=["at once", "a step later"])
def when(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """When the host knows a loss: as on a CPU, as on a GPU."""
    known_late = request.param == "a step later"
    monkeypatch.setattr(late_answer, "is_known_late", lambda tensor: known_late)
    return str(request.param)


class Training:
    def __init__(self, tolerance: Tolerance, objective: str = "softmax", rows: str = "sgd") -> None:
        torch.manual_seed(2)
        self.network = nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(D))
        self.head = ShardedClassifier(C, D, OBJECTIVES[objective](), world=World(), row_optimizer=ROWS[rows]())
        parameters = [*self.network.parameters(), *(self.head.parameters() if rows == "torch" else ())]
        self.optimizer = torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=0.1, fused=True)
        for each in parameters:  # as launch.assembly.optimizer does
            self.optimizer.state[each]["momentum_buffer"] = torch.zeros_like(each)
        self.course, self.told = LossCourse(), list[str]()
        self.check = LossCheck(self.network, self.head, self.optimizer, self.course, tolerance, self.told.append)

    def step(self, number: int, stretch: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(number)
        labels_N = torch.randint(C, (N,), generator=generator)
        images_ND = torch.randn(C, D, generator=torch.Generator().manual_seed(99))[labels_N]
        images_ND = images_ND + 0.1 * torch.randn(N, D, generator=generator)
        if stretch != 1.0:  # wrong labels: a large loss that is finite; or none at all
            labels_N = (labels_N + 7) % C
        loss = self.head(self.network(images_ND * (stretch if math.isnan(stretch) else 1.0)), labels_N, [N])
        minimised = self.check.to_minimise(loss, number)
        if minimised is not None:
            minimised.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad()

    def steps(self, numbers: Iterable[int], stretch: float) -> None:
        for number in numbers:
            self.step(number, stretch)

    def state(self) -> list[Tensor]:
        counted = {"num_batches_tracked", "steps"}  # how many forward passes there were: these go on
        state = [self.optimizer.state[each].get("momentum_buffer") for each in self.network.parameters()]
        for module in (self.network, self.head):
            state += [each for name, each in module.named_parameters()]
            state += [each for name, each in module.named_buffers() if name.split(".")[-1] not in counted]
        return [tensor.detach().clone() for tensor in state if tensor is not None]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert all(torch.equal(now, then) for now, then in zip(found, expected, strict=True))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_that_is_skipped_leaves_weights_state_and_buffers_bitwise_as_they_were(
    objective: str, rows: str, when: str
) -> None:
    training = Training(Tolerance(most_skipped=3), objective, rows)
    for number in range(3):
        training.step(number)
    before = training.state()
    training.step(3, math.nan)
    training.step(4, math.nan)
    training.check.settle()
    assert_same(training.state(), before)
    assert training.check.skipped_steps == 2
    assert [text[:17] for text in training.told] == ["step 3 is skipped", "step 4 is skipped"]
    assert "the loss is nan at step 3" in training.told[0]
    assert "no weight was updated by it; skipped of the last 1,000 steps: 1, of 3 that may be" in training.told[0]
    training.step(5)
    training.check.settle()
    assert not torch.equal(training.state()[0], before[0])
    assert all(tensor.isfinite().all() for tensor in training.state())


def test_both_ways_of_knowing_train_the_same_around_skipped_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for known_late in (False, True):
        monkeypatch.setattr(late_answer, "is_known_late", lambda tensor, late=known_late: late)
        training = Training(Tolerance(most_skipped=9))
        for number in range(8):
            training.step(number, math.nan if number in (0, 3, 4) else 1.0)
        training.check.settle()
        states.append([parameter.detach() for parameter in training.network.parameters()])
        states[-1].append(training.head.weight.detach())
    assert_same(*states)


def test_one_more_than_may_be_ends_the_training_on_the_step_that_is_one_too_many(when: str) -> None:
    training = Training(Tolerance(most_skipped=2))
    training.step(0)
    before = training.state()
    with pytest.raises(TrainingDiverged, match=r"nan at step 3 .*; skipped of the last 1,000 steps: 3, of 2 that may"):
        training.steps(range(1, 9), math.nan)
    assert_same(training.state(), before)


def test_no_step_that_was_skipped_is_followed_by_a_save(when: str) -> None:
    training = Training(Tolerance(most_skipped=9))
    for number, stretch in enumerate((1.0, math.nan, math.nan, 1.0)):
        training.step(number, stretch)
        assert training.check.is_good() == (stretch == 1.0)


def test_only_the_last_thousand_steps_count(when: str) -> None:
    training = Training(Tolerance(most_skipped=1))
    for number in (0, 600, 1599):
        training.step(number, math.nan if number != 600 else 1.0)
    training.step(2500)
    with pytest.raises(TrainingDiverged, match="at step 2510"):
        training.steps((2510, 2520), math.nan)


def test_a_loss_that_jumps_is_skipped_and_one_that_wanders_is_not(when: str) -> None:
    training = Training(Tolerance(most_skipped=5, spike=5.0))
    for number in range(150):
        training.step(number)
    training.check.settle()
    assert training.told == []
    mean, before = training.course.mean, training.state()
    training.step(150, stretch=2.0)
    training.check.settle()
    assert "step 150 is skipped: the loss is" in training.told[0]
    assert "where a spike begins" in training.told[0]
    assert_same(training.state(), before)
    assert training.course.mean == mean, "a spike is no part of what losses are like"
    lenient = Training(Tolerance(most_skipped=5, spike=None))
    for number in range(151):
        lenient.step(number, stretch=2.0 if number == 150 else 1.0)
    lenient.check.settle()
    assert lenient.told == []


def test_the_running_means_are_those_of_the_first_losses_and_follow_later_ones() -> None:
    course = LossCourse()
    assert course.limit(3.0) == math.inf
    losses = [10.0 + (-1) ** number for number in range(100)]
    for loss in losses:
        course.take(loss)
    assert course.mean == pytest.approx(10.0)
    assert course.deviation == pytest.approx(1.0, rel=0.1)
    assert course.limit(3.0) == pytest.approx(course.mean + 3 * course.deviation)
    assert course.limit(None) == math.inf
    for _ in range(2000):
        course.take(2.0)
    assert course.mean == pytest.approx(2.0, abs=1e-6)
    assert course.limit(3.0) == pytest.approx(2.0 + 3 * 0.02), "losses that hardly change leave room for 1 %"
    other = LossCourse()
    other.take_up(course.numbers())
    assert other == course
