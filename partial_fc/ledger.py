"""What a stretch of tensor code costs, counted operator by operator while it runs: memory, operations, traffic.

On real tensors it is the truth of one run; on fake ones (``FakeTensorMode``) it is the same without the arithmetic, so
that a network of any size is counted in seconds and no memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_MAKES_NOTHING = ("aten::empty", "aten::new_empty", "aten::detach", "aten::alias", "aten::_unsafe_view")


class Ledger(TorchDispatchMode):
    """Counts what runs inside the ``with`` block.

    - ``live_bytes``, ``peak_bytes``: tensors made inside that are alive, now and at most; views and outputs that share
      a storage count once. What a kernel takes and gives back by itself is not seen.
    - ``operations``: of matrix products and convolutions; an addition and a multiplication are two.
    - ``traffic_bytes``: what all other operators read and write, each tensor once: one that runs as a kernel of its own
      and finds nothing in a cache moves that much.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = self.operations = self.traffic_bytes = 0
        self._known: set[int] = set()

    def know(self, tensors: Sequence[Tensor]) -> None:
        """These were there before: an operator that gives one of them back has made nothing."""
        self._known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator and note it."""
        given = _tensors((args, kwargs))
        self.know([tensor for tensor in given if tensor.untyped_storage()._cdata not in self._known])
        results = func(*args, **(kwargs or {}))
        made = _tensors(results)
        for tensor in made:
            self._note(tensor.untyped_storage())
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=results)
        elif not func.is_view and not func.name().startswith(_MAKES_NOTHING):
            self.traffic_bytes += sum(map(_moved_bytes, (*given, *made)))
        return results

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
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
    """What one replica of a network costs; ``activations_bytes(n)`` and the like are of a training step on n images.

    A step on 2 and one on 4 fake images are counted and the line through them taken, so it is what eager PyTorch's
    allocator would see, short of what kernels take for themselves; a compiled network needs less. Gradients are there
    beforehand, as DDP's buckets are, and counted apart from the activations.
    """

    def __init__(self, network: Callable[[], nn.Module], image_size: int, autocast: torch.dtype | None) -> None:
        # The class of torch's own that stands behind torch.compile and torch.export.
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode():
            made = network().train()
            for parameter in made.parameters():
                parameter.grad = torch.zeros_like(parameter)
            few, more = (_counted(made, number, image_size, autocast) for number in (2, 4))
        self.parameters = sum(parameter.numel() for parameter in made.parameters() if parameter.requires_grad)
        self.held_bytes = sum(tensor.nbytes for tensor in (*made.parameters(), *made.buffers()))
        self._few, self._more = few, more

    def activations_bytes(self, num_images: int) -> int:
        """The most that is alive at once beside weights and gradients."""
        return self._at(num_images, self._few.peak_bytes, self._more.peak_bytes)

    def operations(self, num_images: int) -> int:
        """Of the products and convolutions, forward and backward."""
        return self._at(num_images, self._few.operations, self._more.operations)

    def traffic_bytes(self, num_images: int) -> int:
        """Of everything else."""
        return self._at(num_images, self._few.traffic_bytes, self._more.traffic_bytes)

    @staticmethod
    def _at(num_images: int, few: int, more: int) -> int:
        return max(few + (more - few) * (num_images - 2) // 2, 0)


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


def _moved_bytes(tensor: Tensor) -> int:
    """An expanded tensor is read once."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())
