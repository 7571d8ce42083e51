"""What a stretch of tensor code costs, counted operator by operator while it runs: memory, operations, traffic.

On real tensors it is the truth of one run; on fake ones (``FakeTensorMode``) it is the same without the arithmetic, so
that a network of any size is counted in seconds and no memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_MOVES_NOTHING = ("aten::empty", "aten::new_empty", "aten::detach", "aten::alias", "aten::_unsafe_view")
_TAKES_SOME = ("aten::index_select", "aten::index.", "aten::gather")
_CHANGES_SOME = ("aten::index_copy_", "aten::index_put_", "aten::_index_put_impl_", "aten::index_add_")


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what runs inside the ``with`` block.

    - ``live_bytes``, ``peak_bytes``: tensors made inside that are alive, now and at most; views and outputs that share
      a storage count once. What a kernel takes and gives back by itself is not seen.
    - ``operations``: of matrix products and convolutions; an addition and a multiplication are two.
    - ``traffic_bytes``: what all other operators read and write, each tensor once: one that runs as a kernel of its own
      and finds nothing in a cache moves that much.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = self.peak_bytes = self.operations = self.traffic_bytes = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator and note it."""
        given = _tensors((args, kwargs))
        for tensor in given:  # what no operator has made inside was there before
            self._note(tensor.untyped_storage(), 0)
        results = func(*args, **(kwargs or {}))
        made = _tensors(results)
        for tensor in made:
            self._note(tensor.untyped_storage(), tensor.untyped_storage().nbytes())
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=results)
        elif func.namespace == "aten" and not func.is_view and not func.name().startswith(_MOVES_NOTHING):
            self.traffic_bytes += _traffic_bytes(func.name(), args, kwargs or {}, made)
        return results

    def _note(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live_bytes -= size


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
        self._ledgers: dict[int, Ledger] = {}
        held = [*self._network.parameters(), *self._network.buffers()]
        self.parameters = sum(parameter.numel() for parameter in self._network.parameters() if parameter.requires_grad)
        self.held_bytes = sum(tensor.nbytes for tensor in held)

    def activations_bytes(self, num_images: int) -> int:
        """The most that is alive at once beside weights and gradients."""
        return self._ledger(num_images).peak_bytes

    def operations(self, num_images: int) -> int:
        """Of the products and convolutions, forward and backward."""
        return self._ledger(num_images).operations

    def traffic_bytes(self, num_images: int) -> int:
        """Of everything else."""
        return self._ledger(num_images).traffic_bytes

    def _ledger(self, num_images: int) -> Ledger:
        num_images = max(num_images, 2)
        if num_images not in self._ledgers:
            with self._mode:
                self._ledgers[num_images] = _counted(self._network, num_images, self._image_size, self._autocast)
        return self._ledgers[num_images]


def _counted(network: nn.Module, num_images: int, image_size: int, autocast: torch.dtype | None) -> Ledger:
    ledger = Ledger()
    with ledger:
        images = torch.empty(num_images, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            embeddings = network(images)
        embeddings.float().sum().backward()
    return ledger


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _traffic_bytes(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], made: list[Tensor]) -> int:
    """What an operator reads and writes. Of a matrix that it takes or changes some rows of, these rows only."""
    if name.startswith(_TAKES_SOME):
        return 2 * sum(map(_moved_bytes, made))
    if name.startswith(_CHANGES_SOME):
        return 2 * _moved_bytes(_tensors(args)[-1])
    overwrites = name.startswith("aten::copy_")
    read = _tensors((args[overwrites:], {key: value for key, value in kwargs.items() if key != "out"}))
    return sum(map(_moved_bytes, (*read, *made)))


def _moved_bytes(tensor: Tensor) -> int:
    """An expanded tensor is read once."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())
