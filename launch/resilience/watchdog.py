"""A rank that hangs ends its own process, so that torchrun starts the run again.

A thread looks at the clock: where a phase of the run takes longer than its limit, it says so on standard error, writes
the stacks of all threads to a file and ends the process. A step that ends in time only moves the moment at which the
next one is late, which takes some microseconds.

Code that hangs and keeps the interpreter's lock stops that thread too. So the thread arms, every few seconds, a timer
of ``faulthandler``, which needs no lock: it writes the stacks to standard error and ends the process. (Arming starts a
thread, which takes 0.1 ms: too much for every step of 5 ms.)

The process ends without any cleaning up, which could hang in its turn. The lock of its folder ends with it.
"""

from __future__ import annotations

import faulthandler
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from launch.config.run import WatchdogConfig

Phase = Literal["start", "step", "save", "evaluation"]

EXIT_CODE = 1  # that of faulthandler: both ends are alike
_STANDARD_ERROR = 2
_LOOKS_PER_LIMIT, _LONGEST_LOOK_SECONDS = 10, 10.0
_WRITING_SECONDS = 10.0  # the file system may be what hangs
_MOMENT_SECONDS = 2.0  # the ranks that wait for this one are late at the same moment: let them write their stacks too
_MARGIN_SECONDS, _YEAR_SECONDS = 60.0, 365 * 24 * 3600.0


class _Watched(NamedTuple):
    phase: Phase
    step: int
    limit_seconds: float
    late_at: float  # of the monotonic clock


class Watchdog:
    """Ends this process, ``rank`` of the run, when a phase exceeds its limit; ``stacks`` is the file for the stacks.

    The first step, which compiles, belongs to the start, so does that of a stage. A phase without a limit may take for
    ever.
    """

    def __init__(self, limits: WatchdogConfig, stacks: Path, rank: int) -> None:
        self._limits: dict[Phase, float] = {
            "start": limits.start_seconds or math.inf,
            "step": limits.step_seconds or math.inf,
            "save": limits.save_seconds or math.inf,
            "evaluation": limits.evaluation_seconds or math.inf,
        }
        self._stacks, self._rank = stacks, rank
        self._watched = _Watched("start", 0, math.inf, math.inf)
        self._changed, self._is_over = threading.Event(), False

    @property
    def collective_seconds(self) -> float:
        """How long a rank may wait for another in a collective: a minute longer than any limit, so that those decide.

        A year where there is a phase without a limit.
        """
        return min(max(self._limits.values()), _YEAR_SECONDS) + _MARGIN_SECONDS

    @contextmanager
    def watching(self) -> Iterator[Watchdog]:
        """Watch this process, from its start on, until the ``with`` block ends."""
        self.begin("start")
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._is_over = True
            self._changed.set()
            thread.join()
            faulthandler.cancel_dump_traceback_later()

    def begin(self, phase: Phase, step: int = 0) -> None:
        """``phase``, of ``step`` where it has one, begins now: what went before has ended in time."""
        limit_seconds = self._limits[phase]
        before, self._watched = self._watched, _Watched(phase, step, limit_seconds, time.monotonic() + limit_seconds)
        if before.phase != phase:
            self._arm_timer()
            self._changed.set()

    def save(self, save: Callable[[int], None]) -> Callable[[int], None]:
        """``save`` of the loop, which begins a save of the step that is done. It lasts until something else begins."""

        def watched(done: int) -> None:
            self.begin("save", done)
            save(done)

        return watched

    def evaluation(self, evaluate: Callable[[int], None]) -> Callable[[int], None]:
        """``evaluate`` of the loop, after the step that is done; then the next step begins."""

        def watched(done: int) -> None:
            self.begin("evaluation", done)
            evaluate(done)
            self.begin("step", done + 1)

        return watched

    def stops(self, stops: Callable[[int], bool]) -> Callable[[int], bool]:
        """``stops`` of the loop, which asks it last in each step: then the next step begins."""

        def watched(done: int) -> bool:
            is_told = stops(done)
            self.begin("step", done + 1)
            return is_told

        return watched

    def _watch(self) -> None:
        while not self._is_over:
            self._changed.clear()
            watched = self._watched
            left_seconds = watched.late_at - time.monotonic()
            if left_seconds <= 0:
                self._end(watched)
            self._arm_timer()
            self._changed.wait(min(left_seconds, _look_seconds(watched)) if math.isfinite(left_seconds) else None)

    def _arm_timer(self) -> None:
        """Have the process ended where neither this is called again nor the thread looks at the clock any more.

        Not before the limit of a step that begins just before the thread is stopped.
        """
        watched = self._watched
        if math.isinf(watched.limit_seconds):
            faulthandler.cancel_dump_traceback_later()
        else:
            seconds = watched.limit_seconds + 2 * _look_seconds(watched)
            faulthandler.dump_traceback_later(seconds, exit=True, file=_STANDARD_ERROR)

    def _end(self, watched: _Watched) -> None:
        faulthandler.dump_traceback_later(_WRITING_SECONDS, exit=True, file=_STANDARD_ERROR)
        said = (
            f"partial-fc: rank {self._rank}: {_named(watched)} takes longer than {watched.limit_seconds:,g} s "
            f"(watchdog.{watched.phase}_seconds), and ends here; the stacks of its threads: {self._stacks}"
        )
        with suppress(OSError):
            print(said, file=sys.stderr, flush=True)
        with suppress(OSError):
            self._stacks.parent.mkdir(parents=True, exist_ok=True)
            with self._stacks.open("a", encoding="utf-8") as file:
                print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {said}", file=file, flush=True)
                faulthandler.dump_traceback(file)
                print(file=file)
        time.sleep(_MOMENT_SECONDS)
        os._exit(EXIT_CODE)


def _look_seconds(watched: _Watched) -> float:
    """How often the thread looks at the clock."""
    return min(watched.limit_seconds / _LOOKS_PER_LIMIT, _LONGEST_LOOK_SECONDS)


def _named(watched: _Watched) -> str:
    named: dict[Phase, str] = {
        "start": "the start",
        "step": f"step {watched.step:,}",
        "save": f"the save of step {watched.step:,}",
        "evaluation": "the evaluation",
    }
    return named[watched.phase]
