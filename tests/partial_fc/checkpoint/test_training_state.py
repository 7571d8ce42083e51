"""The state of the backbone's optimizer, taken up as the optimizer needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

from partial_fc import AdaCos, RowSGD, ShardedClassifier, World
from partial_fc.checkpoint.layout import latest_checkpoint
from partial_fc.checkpoint.loading import load_training_state
from partial_fc.checkpoint.saving import Saver
from partial_fc.checkpoint.training_state import TrainingState

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, fused=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.1, fused=True),
}


class Training:
    """A convolution as the trainer has it, in channels-last order, and its optimizer."""

    def __init__(self, make: Callable[..., torch.optim.Optimizer]) -> None:
        self.network = nn.Conv2d(3, 4, 5).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make(self.network.parameters())
        head = ShardedClassifier(8, 4, AdaCos(8), world=World(), row_optimizer=RowSGD(0.1))
        self.state = TrainingState(self.network, head, self.optimizer, World())

    def step(self, number: int) -> None:
        images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(number))
        self.network(images.to(memory_format=torch.channels_last)).square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def taken_up(self, folder: Path, make: Callable[..., torch.optim.Optimizer]) -> Training:
        """What another process makes of a checkpoint of this training."""
        saver = Saver(folder, self.state, {})
        saver.save(1)
        saver.wait()
        other = Training(make)
        load_training_state(latest_checkpoint(folder), other.state, seed=0)
        return other


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_fused_optimizer_goes_on_as_if_it_had_never_stopped(
    make: Callable[..., torch.optim.Optimizer], tmp_path: Path
) -> None:
    training = Training(make)
    for number in range(3):
        training.step(number)
    other = training.taken_up(tmp_path, make)
    for each in (training, other):
        each.step(3)
    for mine, theirs in zip(training.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(mine, theirs), "the state is read in the order in which the weights lie in memory"


class CountingByGroup(torch.optim.Optimizer):
    """AdamW that counts its steps once for each group, as apex's FusedAdam and FusedLAMB do; without weight decay."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.1, "betas": (0.9, 0.999), "step": 0})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["step"] += 1
            for each in group["params"]:
                state = self.state[each]
                if not state:
                    state |= {"exp_avg": torch.zeros_like(each), "exp_avg_sq": torch.zeros_like(each)}
                state["exp_avg"].lerp_(each.grad, 0.1)
                state["exp_avg_sq"].lerp_(each.grad.square(), 0.001)
                moment, square = (state[key] / (1 - beta ** group["step"]) for key, beta in MOMENTS.items())
                each -= group["lr"] * moment / (square.sqrt() + 1e-8)


MOMENTS = {"exp_avg": 0.9, "exp_avg_sq": 0.999}
ADAMW: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "by group": CountingByGroup,
    "by weight": lambda parameters: torch.optim.AdamW(parameters, 0.1, weight_decay=0.0),
}


@pytest.mark.parametrize("after", ADAMW)
@pytest.mark.parametrize("before", ADAMW)
def test_steps_are_counted_on_wherever_an_optimizer_counts_them(before: str, after: str, tmp_path: Path) -> None:
    training = Training(ADAMW[before])
    for number in range(3):
        training.step(number)
    assert all(float(training.state.shared()[f"optimizer.{name}.step"]) == 3 for name in ("weight", "bias"))
    other = training.taken_up(tmp_path, ADAMW[after])
    for each in (training, other):
        each.step(3)
    for mine, theirs in zip(training.network.parameters(), other.network.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_the_state_of_another_kind_of_optimizer_is_refused(tmp_path: Path) -> None:
    training = Training(OPTIMIZERS["sgd"])
    training.step(0)
    with pytest.raises(ValueError, match="its optimizer kept momentum_buffer of each weight, and this one keeps exp_"):
        training.taken_up(tmp_path, OPTIMIZERS["adamw"])
