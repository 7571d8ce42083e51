"""The most memory that a stretch of a process took: resident pages on a CPU, the allocator's own count on a GPU.

A gauge counts from `begin` on. Its figures are of the whole process: take a difference.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

from benchmarks.processes import kibibytes, status_bytes

CLEAR_REFS, MEMINFO = Path("/proc/self/clear_refs"), Path("/proc/meminfo")
RESET_HIGH_WATER_MARK = "5"  # man 5 proc, clear_refs


class HighWaterMark:
    """The kernel's own mark of the resident set (`VmHWM`): exact, whatever short-lived buffer made the peak.

    OSError where the kernel or a container refuses the reset.
    """

    def __init__(self) -> None:
        self.begin()

    def now_bytes(self) -> int:
        return status_bytes("VmRSS")

    def begin(self) -> None:
        """Forget the peak; what was freed goes back to the kernel first, or blocks out of it would not count."""
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)
        CLEAR_REFS.write_text(RESET_HIGH_WATER_MARK)

    def peak_bytes(self) -> int:
        return status_bytes("VmHWM")


class AllocatedOnGpu:
    """What PyTorch's allocator has handed out on the current CUDA device; its unused cache is not counted."""

    def now_bytes(self) -> int:
        return torch.cuda.memory_allocated()

    def begin(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated()


def peak_memory(device: torch.device) -> HighWaterMark | AllocatedOnGpu:
    """The gauge of `device`."""
    return AllocatedOnGpu() if device.type == "cuda" else HighWaterMark()


def available_bytes(device: torch.device) -> int:
    """What one more process could have: the free memory of the GPU, or the kernel's estimate for the machine."""
    return torch.cuda.mem_get_info()[0] if device.type == "cuda" else kibibytes(MEMINFO.read_text(), "MemAvailable")
