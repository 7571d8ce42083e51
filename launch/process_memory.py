"""How the process keeps its memory."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names for them, in malloc.h
_LARGEST_KEPT_BYTES = 32 << 20  # glibc takes no more


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks of up to 32 MiB in the process; False where that is not glibc.

    By default it gives them back, and the kernel maps fresh pages at the next step: for a network trained on a CPU, at
    every layer. Peak memory stays; what is kept is what the next step asks for.
    """
    libc = ctypes.CDLL(None)
    if sys.platform != "linux" or not hasattr(libc, "mallopt"):
        return False
    kept = libc.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
    return bool(libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1) and kept)
