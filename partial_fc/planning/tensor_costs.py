"""What a stretch of tensor code costs, counted operator by operator while it runs: memory, operations, traffic.

On real tensors it is the truth of one run; on fake ones (``FakeTensorMode``) it is the same without the arithmetic, so
that a network of any size is counted in seconds and no memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_MOVES_NOTHING = ("aten::empty", "aten::new_empty", "aten::detach", "aten::alias", "aten::_unsafe_view")
_TAKES_SOME = ("aten::index_select", "aten::index.", "aten::gather")
_CHANGES_SOME = ("aten::index_copy_", "aten::index_put_", "aten::_index_put_impl_", "aten::index_add_")


class TensorCosts(TorchDispatchMode):  # type: ignore[no-untyped-call]
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
        self._is_in_kernel = False

    def one_kernel(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """``function``, counted as one pass: it reads what it is given and writes its result, and makes nothing else.

        That is what torch.compile makes of a chain of elementwise operators, and here stands for it.
        """

        def counted(*given: Any) -> Tensor:
            for tensor in _tensors(given):
                self._note(tensor.untyped_storage(), 0)
            self._is_in_kernel = True
            try:
                result = function(*given)
            finally:
                self._is_in_kernel = False
            self._note(result.untyped_storage(), result.untyped_storage().nbytes())
            self.traffic_bytes += sum(map(_moved_bytes, (*_tensors(given), result)))
            return result

        return counted

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator and note it."""
        if self._is_in_kernel:
            return func(*args, **(kwargs or {}))
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
