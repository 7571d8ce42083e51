"""Who goes first where threads want the same core."""

from __future__ import annotations

import os
import sys
import threading

_NICENESS = 10


def yield_to_training() -> None:
    """Let this thread compute where no other wants to; Linux has a priority of its own for each thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
