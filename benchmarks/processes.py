"""What Linux says of the memory of this process and of the machine."""

from __future__ import annotations

from pathlib import Path

KIBIBYTE = 1 << 10
STATUS = Path("/proc/self/status")


def status_bytes(field: str) -> int:
    """A figure of this process, as `/proc/self/status` has it."""
    return kibibytes(STATUS.read_text(), field)


def kibibytes(text: str, field: str) -> int:
    """The `Field:   123 kB` line of `text`, in bytes; 0 where there is none."""
    return sum(int(line.split()[1]) * KIBIBYTE for line in text.splitlines() if line.startswith(f"{field}:"))
