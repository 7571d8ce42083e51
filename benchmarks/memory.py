"""The most memory that a stretch of a process took: resident pages on a CPU, the allocator's own count on a GPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

import torch

STATUS, CLEAR_REFS, MEMINFO = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/meminfo")
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
        """See :class:`PeakMemory`."""
        return _status_bytes("VmRSS")

    def begin(self) -> None:
        """See :class:`PeakMemory`."""
        CLEAR_REFS.write_text(RESET_HIGH_WATER_MARK)

    def peak_bytes(self) -> int:
        """See :class:`PeakMemory`."""
        return _status_bytes("VmHWM")


class SampledResident:
    """The resident set, looked at every millisecond by a thread: a buffer that lives shorter may be missed."""

    def __init__(self) -> None:
        self._peak_bytes = 0
        self._lock = threading.Lock()
        self.begin()
        threading.Thread(target=self._watch, name="resident-memory", daemon=True).start()

    def now_bytes(self) -> int:
        """See :class:`PeakMemory`."""
        return _status_bytes("VmRSS")

    def begin(self) -> None:
        """See :class:`PeakMemory`."""
        with self._lock:
            self._peak_bytes = self.now_bytes()

    def peak_bytes(self) -> int:
        """See :class:`PeakMemory`."""
        self._look()
        return self._peak_bytes

    def _look(self) -> None:
        with self._lock:
            self._peak_bytes = max(self._peak_bytes, self.now_bytes())

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(SAMPLE_SECONDS):
            self._look()


class AllocatedOnGpu:
    """What PyTorch's allocator has handed out on the current CUDA device; its unused cache is not counted."""

    def now_bytes(self) -> int:
        """See :class:`PeakMemory`."""
        return torch.cuda.memory_allocated()

    def begin(self) -> None:
        """See :class:`PeakMemory`."""
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        """See :class:`PeakMemory`."""
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
    if device.type == "cuda":
        return torch.cuda.mem_get_info()[0]
    return _kibibytes(MEMINFO.read_text(), "MemAvailable") * 1024


def _status_bytes(field: str) -> int:
    return _kibibytes(STATUS.read_text(), field) * 1024


def _kibibytes(text: str, field: str) -> int:
    """The figure of a `Field:   123 kB` line."""
    line = next(line for line in text.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1])
