"""The optimizers, LARC and the layer norm of a real apex, each against what torch does or what its paper says."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from launch.assembly.optimizer import optimizer
from launch.config.run import OptimizerConfig
from partial_fc import AdaCos, RowSGD, ShardedClassifier, World
from partial_fc.backbones.layer_norm import layer_norms
from partial_fc.checkpoint.layout import latest_checkpoint
from partial_fc.checkpoint.loading import load_training_state
from partial_fc.checkpoint.saving import Saver
from partial_fc.checkpoint.training_state import TrainingState
from partial_fc.divergence import LossCheck, Tolerance

pytestmark = [pytest.mark.gpu, pytest.mark.apex]
STEPS, RATE, DECAY, BETAS = 5, 0.05, 0.1, (0.9, 0.999)


def network_of(seed: int = 0) -> nn.Module:
    """In channels-last order, as the trainer's networks are."""
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Flatten(), nn.Linear(8 * 16, 4))
    return made.to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def section_of(name: str, **options: float | bool | str) -> OptimizerConfig:
    return OptimizerConfig.model_validate({"name": name, "learning_rate": RATE, "weight_decay": DECAY, **options})


def gradients(network: nn.Module, step: int) -> None:
    images = torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(step)).cuda()
    network.zero_grad()
    network(images.to(memory_format=torch.channels_last)).square().mean().backward()


def trained(network: nn.Module, section: OptimizerConfig, steps: range = range(STEPS)) -> torch.optim.Optimizer:
    made = optimizer(section, network)
    for step in steps:
        gradients(network, step)
        made.step()
        made.zero_grad()
    return made


def assert_close(network: nn.Module, other: nn.Module) -> None:
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"nesterov": False}, {"momentum": 0.0}, {"decays": "all"}])
def test_apex_sgd_takes_the_steps_of_torchs(options: dict[str, float | bool | str]) -> None:
    networks = network_of(), network_of()
    trained(networks[0], section_of("apex_sgd", **options))
    trained(networks[1], section_of("sgd", **options))
    assert_close(*networks)


def test_apex_adamw_takes_the_steps_of_torchs() -> None:
    networks = network_of(), network_of()
    trained(networks[0], section_of("apex_adamw"))
    trained(networks[1], section_of("adamw"))
    assert_close(*networks)


def test_apex_lamb_is_the_papers_and_clips_no_gradient() -> None:
    networks = network_of(), network_of()
    trained(networks[0], section_of("apex_lamb"))
    moments = [(torch.zeros_like(each), torch.zeros_like(each)) for each in networks[1].parameters()]
    for step in range(STEPS):
        gradients(networks[1], step)
        for each, (first, second) in zip(networks[1].parameters(), moments, strict=True):
            lamb_step_(each, first, second, step + 1)
    assert_close(*networks)


@torch.no_grad()
def lamb_step_(weight: Tensor, first: Tensor, second: Tensor, step: int) -> None:
    """Algorithm 2 of 1904.00962; what does not decay takes AdamW's step."""
    assert weight.grad is not None
    decay = DECAY if weight.dim() > 1 else 0.0
    first.lerp_(weight.grad, 1 - BETAS[0])
    second.lerp_(weight.grad.square(), 1 - BETAS[1])
    update = first / (1 - BETAS[0] ** step) / ((second / (1 - BETAS[1] ** step)).sqrt() + 1e-6) + decay * weight
    trust = weight.norm() / update.norm() if decay else 1.0
    weight.sub_(RATE * trust * update)


@pytest.mark.parametrize("name", ["sgd", "apex_sgd"])
def test_larc_bounds_the_rate_of_each_tensor(name: str) -> None:
    networks, trust = (network_of(), network_of()), 0.001
    trained(networks[0], section_of(name, momentum=0.0, larc=trust))
    for step in range(STEPS):
        gradients(networks[1], step)
        with torch.no_grad():
            for each in networks[1].parameters():
                assert each.grad is not None
                decay = DECAY if each.dim() > 1 else 0.0
                bound = trust * each.norm() / (each.grad.norm() + decay * each.norm() + 1e-8)
                each.sub_(min(RATE, float(bound)) * (each.grad + decay * each))
    assert_close(*networks)


@pytest.mark.parametrize("after", ["adamw", "apex_adamw"])
@pytest.mark.parametrize("before", ["adamw", "apex_adamw"])
def test_a_run_goes_on_with_the_state_of_either_adamw(before: str, after: str, tmp_path: Path) -> None:
    network, other = network_of(), network_of(1)
    head = ShardedClassifier(8, 4, AdaCos(8), world=World(), row_optimizer=RowSGD(0.1)).cuda()
    made = trained(network, section_of(before))
    saver = Saver(tmp_path, TrainingState(network, head, made, World()), {})
    saver.save(STEPS)
    saver.wait()
    continued = optimizer(section_of(after), other)
    load_training_state(latest_checkpoint(tmp_path), TrainingState(other, head, continued, World()), seed=0)
    for each, steps in ((network, made), (other, continued)):
        gradients(each, STEPS)
        steps.step()
    assert_close(network, other)


@pytest.mark.parametrize("section", [section_of("apex_sgd"), section_of("apex_lamb"), section_of("sgd", larc=0.02)])
def test_a_bad_loss_is_waited_for_and_updates_no_weight(section: OptimizerConfig) -> None:
    network = network_of()
    head = ShardedClassifier(8, 4, AdaCos(8), world=World(), row_optimizer=RowSGD(0.1)).cuda()
    check = LossCheck(network, head, optimizer(section, network), tolerance=Tolerance(most_skipped=1))
    assert check.to_minimise(torch.tensor(torch.nan, device="cuda"), 0) is None
    assert check.to_minimise(torch.tensor(1.0, device="cuda"), 1) is not None


@pytest.mark.parametrize("casts", [False, True])
def test_the_fused_layer_norm_has_the_weights_and_the_outputs_of_torchs(casts: bool) -> None:
    mine, theirs = layer_norms("apex")(32).cuda(), nn.LayerNorm(32).cuda()
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    mine.load_state_dict(copy.deepcopy(theirs.state_dict()))
    tokens = torch.randn(4, 7, 32, device="cuda")
    with torch.autocast("cuda", torch.bfloat16, enabled=casts):
        outputs = mine(tokens), theirs(tokens)
    tolerance = 2e-2 if casts else 1e-5  # apex's output is in bfloat16 where torch's is in float32
    torch.testing.assert_close(outputs[0].float(), outputs[1].float(), rtol=tolerance, atol=tolerance)
