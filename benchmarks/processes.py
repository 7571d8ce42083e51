"""What Linux says of processes: their memory, their processor time, and which of them are ranks of a training."""

from __future__ import annotations

import resource
from pathlib import Path

KIBIBYTE = 1 << 10
RANK_COMMAND = "launch.train"


def status_bytes(field: str, process: int | str = "self") -> int:
    """A figure of `/proc/PID/status`; 0 where the process has ended."""
    return kibibytes(proc_text("status", process), field)


def kibibytes(text: str, field: str) -> int:
    """The `Field:   123 kB` line of `text`, in bytes; 0 where there is none."""
    return sum(int(line.split()[1]) * KIBIBYTE for line in text.splitlines() if line.startswith(f"{field}:"))


def used_cpu_seconds() -> float:
    """What this process and its ended children have used, in user and in system time."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def ranks_under(process: int) -> list[int]:
    """The processes below `process` that are ranks of a training."""
    found = []
    for child in map(int, proc_text(f"task/{process}/children", process).split()):
        found += [child] if RANK_COMMAND in proc_text("cmdline", child) else ranks_under(child)
    return found


def proc_text(name: str, process: int | str) -> str:
    """A file of `/proc/PID`; nothing where the process has ended."""
    try:
        return Path(f"/proc/{process}/{name}").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
