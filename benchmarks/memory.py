"""The most memory that a stretch of a process took: resident pages on a CPU, the allocator's own count on a GPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

import torch

from benchmarks.processes import kibibytes, status_bytes

CLEAR_REFS, MEMINFO = Path("/proc/self/clear_refs"), Path("/proc/meminfo")
RESET_HIGH_WATER_MARK = "5"  # man 5 proc, clear_refs
SAMPLE_SECONDS = 0.001


class PeakMemory(Protocol):
    """A gauge of this process's memory. All figures are of the whole process: take a difference."""

    def now_bytes(self) -> int:
        """What the process holds at this moment."""

    def begin(self) -> None:
        """Forget the peak so far: a new stretch begins."""

    def peak_bytes(self) -> int:
        """The most that the process held at any moment since `begin`."""


class HighWaterMark:
    """The kernel's own mark of the resident set (`VmHWM`): exact, whatever short-lived buffer made the peak.

    OSError where the kernel or a container refuses the reset.
    """

    def __init__(self) -> None:
        self.begin()

    def now_bytes(self) -> int:
        return status_bytes("VmRSS")

    def begin(self) -> None:
        CLEAR_REFS.write_text(RESET_HIGH_WATER_MARK)

    def peak_bytes(self) -> int:
        return status_bytes("VmHWM")


class SampledResident:
    """The resident set, looked at every millisecond by a thread: a buffer that lives shorter may be missed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.begin()
        threading.Thread(target=self._watch, name="resident-memory", daemon=True).start()

    def now_bytes(self) -> int:
        return status_bytes("VmRSS")

    def begin(self) -> None:
        with self._lock:
            self._peak_bytes = self.now_bytes()

    def peak_bytes(self) -> int:
        with self._lock:
            self._peak_bytes = max(self._peak_bytes, self.now_bytes())
            return self._peak_bytes

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(SAMPLE_SECONDS):
            self.peak_bytes()


class AllocatedOnGpu:
    """What PyTorch's allocator has handed out on the current CUDA device; its unused cache is not counted."""

    def now_bytes(self) -> int:
        return torch.cuda.memory_allocated()

    def begin(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated()


def peak_memory(device: torch.device) -> PeakMemory:
    """The best gauge that `device` and this kernel have."""
    if device.type == "cuda":
        return AllocatedOnGpu()
    try:
        return HighWaterMark()
    except OSError:
        return SampledResident()


def available_bytes(device: torch.device) -> int:
    """What one more process could have: the free memory of the GPU, or the kernel's estimate for the machine."""
    return torch.cuda.mem_get_info()[0] if device.type == "cuda" else kibibytes(MEMINFO.read_text(), "MemAvailable")
