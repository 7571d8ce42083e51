"""SIGTERM, as Slurm, Kubernetes and spot machines send it: all ranks stop after the same step, and save."""

from __future__ import annotations

import _thread
import ctypes
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from partial_fc import World

ASKED_EVERY_STEPS = 8
ONE_REQUEST_SECONDS = 2.0  # signals within it are one: see `_take_repeats_for_one`


class StopRequest:
    """Whether any rank was told to end, agreed by all of them every few steps.

    A second signal, two seconds after the first or later, ends the process at once, as it would have without this.
    """

    def __init__(self, world: World, device: torch.device) -> None:
        self._world, self._device = world, device
        self._is_told = False
        self.was_agreed = False
        """Whether the ranks have agreed to end."""

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Hear SIGTERM inside the ``with`` block, in the main thread; elsewhere the signal ends the process."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGTERM, self._hear)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)

    def is_agreed(self, done: int) -> bool:
        """Whether training ends after ``done`` steps, on all ranks alike. An all-reduce of a number every 8 steps."""
        if done % ASKED_EVERY_STEPS:
            return False
        self.was_agreed = bool(self._world.all_sum(torch.tensor(int(self._is_told), device=self._device)))
        return self.was_agreed

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._is_told = True
        _take_repeats_for_one()


def leave_on_sigterm() -> None:
    """From now on SIGTERM unwinds this process, so that a start which is ended early leaves nothing behind.

    Without it the signal ends the process on the spot: a rank that waits for a lost partner is ended so by its
    launcher, and its lock would stay in the run's folder. A second signal, two seconds after the first or later, ends
    the process at once.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        _take_repeats_for_one()
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def _take_repeats_for_one() -> None:
    """From now on SIGTERM does nothing, and after ONE_REQUEST_SECONDS it ends this process at once.

    One request comes as several signals: a scheduler signals a rank and its agent, which passes the signal on; and the
    kernel tells a rank of its agent's end each time that one more of the agent's threads is gone.
    `tests/launch/resilience/test_stopping.py` holds both halves.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _thread.start_new_thread(_end_at_next_signal, ())  # `threading` may hold a lock that this handler interrupted


def _end_at_next_signal() -> None:
    time.sleep(ONE_REQUEST_SECONDS)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:  # else whoever listens now has it
        # By the C library: Python changes handlers in its main thread only, which may wait for a lost partner.
        ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(0))  # SIG_DFL
