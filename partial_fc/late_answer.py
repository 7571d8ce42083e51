"""A number that a device still has to find, read by the host when it has arrived."""

from __future__ import annotations

import torch
from torch import Tensor


def is_known_late(tensor: Tensor) -> bool:
    """Whether the host would have to wait for a device to read ``tensor``."""
    return tensor.is_cuda


class LateAnswer:
    """Copies ``answer``, of shape ``()``, to the host without waiting. On a CPU the answer is there at once."""

    def __init__(self, answer: Tensor) -> None:
        self._answer, self._arrived = answer, None
        if answer.is_cuda:
            self._answer = torch.empty_like(answer, device="cpu", pin_memory=True).copy_(answer, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(answer.device))

    def read(self) -> float:
        """The answer. Waits for the work that was queued before it, not for work that was queued since."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._answer)
