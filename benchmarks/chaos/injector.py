"""Where a rank is, and the faults that are due there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from benchmarks.chaos.actions import ACTIONS
from benchmarks.chaos.faults import Event, Fault, FaultFile, launch_seconds, now_seconds

MOMENT = "moment"  # the place of a fault that comes some time after a step began, wherever the rank is then


class Injector:
    """Told by the patched functions of ``places.py`` where its rank is, it lets happen what is due."""

    def __init__(self, file: FaultFile, rank: int) -> None:
        self.file, self.rank = file, rank
        self.step, self.collectives = -1, 0
        self._attempt = f"{os.getppid()}-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        self._mine = {number: fault for number, fault in enumerate(file.faults) if fault.rank == rank}
        self._note("start", seconds=launch_seconds())

    def begin(self, step: int) -> None:
        """A step begins."""
        self.step, self.collectives = step, 0
        self._note("begin")
        if fault := self.due(MOMENT):
            threading.Timer(fault.seconds, self.act, [fault]).start()

    def end(self) -> None:
        """The rank ends by itself."""
        self._note("end")

    def reached(self, place: str) -> None:
        """The rank is at ``place``."""
        if fault := self.due(place):
            self.act(fault)

    def due(self, place: str) -> Fault | None:
        """The fault that is due at ``place``, from now on this process's to suffer."""
        if self.file.records[0] <= self.step < self.file.records[1]:
            self._note("place", place)
        for number, fault in self._mine.items():
            if fault.place == place and self.step >= fault.step and self.file.take(number):
                return fault
        return None

    def act(self, fault: Fault) -> None:
        """Suffer it."""
        self._note("fault", str(self.file.faults.index(fault)))
        ACTIONS[fault.action](fault, self.file)

    def around(self, function: Callable[..., Any], name: Callable[..., str | None]) -> Callable[..., Any]:
        """``function``, before and after which the rank is at a place of that name, where ``name`` gives one."""

        def wrapped(*arguments: Any, **options: Any) -> Any:
            place = name(*arguments)
            if place is None:
                return function(*arguments, **options)
            self.reached(f"before {place}")
            result = function(*arguments, **options)
            self.reached(f"after {place}")
            return result

        return wrapped

    def inside(self, collective: Callable[..., Any]) -> Callable[..., Any]:
        """``collective`` of torch.distributed, inside of which the rank is at a place: begun, and not awaited.

        The places of a step are numbered in the order in which the rank comes to them.
        """

        def wrapped(*arguments: Any, async_op: bool = False, **options: Any) -> Any:
            fault = self.due(f"inside collective {self.collectives}")
            self.collectives += 1
            if fault is None:
                return collective(*arguments, async_op=async_op, **options)
            work = collective(*arguments, async_op=True, **options)
            self.act(fault)
            return work if async_op else work.wait()

        return wrapped

    def _note(self, kind: str, note: str = "", seconds: float | None = None) -> None:
        seconds = now_seconds() if seconds is None else seconds
        self.file.note(Event(kind, seconds, self.rank, self._attempt, self.step, note))
