"""What one replica of a network costs in a training step: memory, operations, traffic."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from partial_fc.planning.tensor_costs import TensorCosts


class BackboneCost:
    """What one replica of a network costs in a training step, as a step on fake images has it.

    That is what eager PyTorch asks of its allocator, short of what kernels take for themselves; a compiled network
    needs less. Gradients are there beforehand, as DDP's buckets are, and counted apart from the activations. Each
    number of images is counted once, in seconds; BatchNorm needs two.
    """

    def __init__(self, network: Callable[[], nn.Module], image_size: int, autocast: torch.dtype | None) -> None:
        self._mode = FakeTensorMode()
        with self._mode:
            self._network = network().train()
            for parameter in self._network.parameters():
                parameter.grad = torch.zeros_like(parameter)
        self._image_size, self._autocast = image_size, autocast
        self._costs: dict[int, TensorCosts] = {}
        held = [*self._network.parameters(), *self._network.buffers()]
        self.parameters = sum(parameter.numel() for parameter in self._network.parameters() if parameter.requires_grad)
        self.held_bytes = sum(tensor.nbytes for tensor in held)
        self.buffer_bytes = sum(buffer.nbytes for buffer in self._network.buffers())

    def activations_bytes(self, num_images: int) -> int:
        """The most that is alive at once beside weights and gradients."""
        return self._counted(num_images).peak_bytes

    def operations(self, num_images: int) -> int:
        """Of the products and convolutions, forward and backward."""
        return self._counted(num_images).operations

    def traffic_bytes(self, num_images: int) -> int:
        """Of everything else."""
        return self._counted(num_images).traffic_bytes

    def _counted(self, num_images: int) -> TensorCosts:
        num_images = max(num_images, 2)
        if num_images not in self._costs:
            with self._mode:
                self._costs[num_images] = _step_costs(self._network, num_images, self._image_size, self._autocast)
        return self._costs[num_images]


def _step_costs(network: nn.Module, num_images: int, image_size: int, autocast: torch.dtype | None) -> TensorCosts:
    costs = TensorCosts()
    with costs:
        images = torch.empty(num_images, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            embeddings = network(images)
        embeddings.float().sum().backward()
    return costs
