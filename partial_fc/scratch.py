"""Memory that blocks and steps share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Scratch:
    """Named buffers, made once and used again by every block of every step.

    Freed blocks of some MiB go back to the kernel, which maps the next ones page by page: on a CPU that can cost as
    much as the arithmetic on them (``docs/performance.md``). A buffer is valid until its name is asked for again.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def __call__(self, name: str, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialised contiguous tensor of ``shape`` on the device of ``like`` and, by default, of its dtype."""
        dtype = like.dtype if dtype is None else dtype
        count = torch.Size(shape).numel()
        key = name, dtype, like.device
        buffer = self._buffers.get(key)
        if buffer is None or len(buffer) < count:
            with torch.inference_mode(False):  # an evaluation's buffers serve the next training step too
                buffer = self._buffers[key] = torch.empty(count, dtype=dtype, device=like.device)
        return buffer[:count].view(*shape)
