"""One copy of the state in the CPU's memory, which is taken before the first save and used by every one.

The kernel gives a page of fresh memory when it is first written to, which takes several times as long as a copy does:
it is done beside the training, and so is pinning, which lets a GPU write there by itself.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections.abc import Mapping

import torch
from torch import Tensor

_ALIGNMENT = 64  # bytes: what any dtype and the processor's cache lines ask for
_PAGES_AT_A_TIME = 4096


def room_bytes(tensors: Mapping[str, Tensor]) -> int:
    """What copies of ``tensors`` take, one after the other."""
    return sum(_aligned(tensor.nbytes) for tensor in tensors.values())


class Copies:
    """``size_bytes`` of memory for copies that overwrite each other; OSError where the system has none to give.

    Pinned where ``device`` is a GPU. A thread gets it ready; the first copy waits for that.
    """

    def __init__(self, size_bytes: int, device: torch.device) -> None:
        self.size_bytes = max(size_bytes, _ALIGNMENT)
        self._memory = mmap.mmap(-1, self.size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._device = device
        self._thread = threading.Thread(target=self._make_ready, name="memory for checkpoints", daemon=True)
        self._thread.start()

    def __call__(self, tensors: Mapping[str, Tensor], offset: int = 0) -> dict[str, Tensor]:
        """Copies of ``tensors``, laid down from ``offset`` on; a GPU may still be at it."""
        self._thread.join()
        copies = {}
        for name, tensor in tensors.items():
            copies[name] = self._place(tensor, offset).copy_(tensor, non_blocking=True)
            offset += _aligned(tensor.nbytes)
        return copies

    def _place(self, tensor: Tensor, offset: int) -> Tensor:
        """A tensor like ``tensor``, strides too, at ``offset``; with a storage of its own, which torch.save writes."""
        if not tensor.numel():
            return torch.empty(tensor.shape, dtype=tensor.dtype)
        flat = torch.frombuffer(self._memory, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
        return flat.as_strided(tensor.shape, torch.empty_like(tensor, device="meta").stride())

    def _make_ready(self) -> None:
        whole = torch.frombuffer(self._memory, dtype=torch.uint8)
        first_of_page = whole[:: mmap.PAGESIZE]
        for pages in torch.split(first_of_page, _PAGES_AT_A_TIME):
            pages.zero_()  # so few that torch uses this thread alone
        if self._device.type == "cuda":
            with torch.cuda.device(self._device):
                # By hand: torch's pin_memory takes the next power of two. Where it is refused, copies are slower.
                cuda, address = torch.cuda.cudart(), whole.data_ptr()  # type: ignore[no-untyped-call]
                if int(cuda.cudaHostRegister(address, self.size_bytes, 0)) == 0:
                    weakref.finalize(self, cuda.cudaHostUnregister, address).atexit = False


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT) * _ALIGNMENT
