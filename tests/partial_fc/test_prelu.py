"""The vectorised PReLU is torch's own, in values, gradients and keys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from partial_fc.backbones.prelu import PReLU


def value_and_gradients(layer: nn.PReLU, x: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    value = layer(x)
    return value.detach(), *torch.autograd.grad(value, [x, layer.weight], grad)


@pytest.mark.parametrize("shape", [(4, 6, 5, 3), (4, 6), (2, 6, 7)], ids=str)
@pytest.mark.parametrize("weights", [1, 6])
def test_values_and_gradients_are_those_of_torchs_own_prelu(shape: tuple[int, ...], weights: int) -> None:
    torch.manual_seed(1)
    x, grad = torch.randn(shape), torch.randn(shape)
    x.view(-1)[0] = 0.0
    ours, theirs = PReLU(weights), nn.PReLU(weights)
    with torch.no_grad():
        ours.weight.copy_(torch.linspace(-0.5, 1.5, weights))
    theirs.load_state_dict(ours.state_dict())
    for got, expected in zip(value_and_gradients(ours, x, grad), value_and_gradients(theirs, x, grad), strict=True):
        torch.testing.assert_close(got, expected)


def test_bfloat16_images_under_float32_weights_keep_their_type_and_memory_format() -> None:
    torch.manual_seed(2)
    x = torch.randn(4, 8, 5, 5, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    grad = torch.randn_like(x)
    layer = PReLU(8)
    value, grad_x, grad_weight = value_and_gradients(layer, x, grad)
    exact_value, exact_grad_x, exact_grad_weight = value_and_gradients(nn.PReLU(8), x.float(), grad.float())
    assert value.dtype == grad_x.dtype == torch.bfloat16
    assert value.is_contiguous(memory_format=torch.channels_last)
    assert grad_weight.dtype == torch.float32
    torch.testing.assert_close(value.float(), exact_value, rtol=2**-8, atol=0)
    torch.testing.assert_close(grad_x.float(), exact_grad_x, rtol=2**-8, atol=0)
    torch.testing.assert_close(grad_weight, exact_grad_weight, rtol=2**-6, atol=0.1)
