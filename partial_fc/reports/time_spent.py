"""What the time of a run was spent on, from its first start on: training, and what keeps it from training.

The account travels in the checkpoints. A process that goes on from one takes it up, and books what lies between that
save and its own start under ``restart``: the steps that were lost, and the time in which nothing ran.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Literal, get_args

Cause = Literal["training", "data", "save", "start", "restart", "evaluation"]
CAUSES: tuple[Cause, ...] = get_args(Cause)


class TimeSpent:
    """Seconds by cause, which add up to the time from the run's first start to ``until_seconds``, since 1970.

    ``training`` is what steps take without their wait for data, ``data`` that wait, ``save`` the pauses for
    checkpoints, ``start`` all to the end of a process's first step, which compiles, and to the first of a stage.
    """

    def __init__(self, started_seconds: float, taken_up: Mapping[str, Any] | None = None) -> None:
        """An account that begins with a process at ``started_seconds``, or goes on with ``taken_up``, :meth:`record`.

        ValueError for what is no record.
        """
        self.seconds: dict[Cause, float] = dict.fromkeys(CAUSES, 0.0)
        self.until_seconds = started_seconds
        if taken_up is not None:
            try:
                self.seconds = {cause: float(taken_up["seconds"].get(cause, 0.0)) for cause in CAUSES}
                self.until_seconds = float(taken_up["until_seconds"])
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise ValueError(f"expected seconds by cause and until_seconds, got {taken_up!r}") from error
            self.spend("restart", started_seconds)

    def spend(self, cause: Cause, until_seconds: float | None = None) -> None:
        """Book the time from ``self.until_seconds`` to now, or as given, under ``cause``. A clock set back books 0."""
        until_seconds = time.time() if until_seconds is None else until_seconds
        self.seconds[cause] += max(until_seconds - self.until_seconds, 0.0)
        self.until_seconds = max(until_seconds, self.until_seconds)

    def move(self, seconds: float, source: Cause, target: Cause) -> None:
        """Book ``seconds`` under ``target`` that were booked under ``source``, as far as they go."""
        moved = min(seconds, self.seconds[source])
        self.seconds[source] -= moved
        self.seconds[target] += moved

    @property
    def goodput(self) -> float:
        """The share of the time that was spent on training; 1 before there is any."""
        total = sum(self.seconds.values())
        return self.seconds["training"] / total if total > 0 else 1.0

    def record(self) -> dict[str, Any]:
        """What JSON keeps of the account."""
        return {"seconds": dict(self.seconds), "until_seconds": self.until_seconds}


def started_seconds(process: int | None = None) -> float:
    """When this process began, or the one of that number, since 1970; where the system does not say, now."""
    try:
        with open(f"/proc/{process or 'self'}/stat", encoding="ascii") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])  # since the machine was started: proc(5), field 22
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError):
        return time.time()
