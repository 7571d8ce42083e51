"""Instants on the clock of a device: they are taken without making the host wait, and compared when a report is due."""

from __future__ import annotations

import resource
import sys
import time

import torch

Instant = float | torch.cuda.Event
Span = tuple[Instant, Instant]


def instant(device: torch.device) -> Instant:
    """Now: on a CUDA device an event in the current stream, as the host is ahead of the device; else seconds."""
    if device.type != "cuda":
        return time.perf_counter()
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def duration_seconds(span: Span) -> float:
    """From the span's first instant to its second; waits for a device that has not come there yet."""
    begin, end = span
    if isinstance(begin, float) or isinstance(end, float):
        return float(end) - float(begin)  # type: ignore[arg-type]
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000.0


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory this process has had so far: allocated on the CUDA device, or resident on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10  # elsewhere in KiB
