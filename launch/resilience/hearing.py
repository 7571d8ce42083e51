"""How a process hears of SIGTERM: several signals of one request are one, and a later request is not."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ONE_REQUEST_SECONDS = 2.0
UNWINDING_SECONDS = (
    20.0  # for a process that leaves: what it saves is saved before, and what it waits for may never come
)
TOLD_TO_END = 128 + signal.SIGTERM


def _leave() -> None:
    sys.exit(TOLD_TO_END)


class Hearing:
    """SIGTERM as this process hears it: the first one is answered, and one two seconds later or more ends the process.

    One request comes as several signals: a scheduler signals a rank and its agent, which passes the signal on; and the
    kernel tells a rank of its agent's end each time that one more of the agent's threads is gone. So signals within
    ONE_REQUEST_SECONDS of the first are that one.

    Python answers a signal in the main thread, which may wait in a collective for a lost partner and never come back.
    So a thread hears of each signal too, by the pipe of ``signal.set_wakeup_fd``, and ends the process: at the second
    request, and UNWINDING_SECONDS after one that was to unwind the process and has not. Also a process whose number is
    1, as in a container, to which the kernel's own ending does not apply.
    """

    def __init__(self) -> None:
        self._answer: Callable[[], None] = _leave
        self._first: float | None = None
        self._is_answered = self._is_leaving = False
        self._pipe: tuple[int, int] | None = None
        self._pipe_before = -1

    def begin(self) -> None:
        """Hear from now on, as if nothing had been heard before; in the main thread."""
        self._answer, self._first, self._is_answered, self._is_leaving = _leave, None, False, False
        if self._pipe is None:
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            os.register_at_fork(after_in_child=self._leave_to_the_parent)
            threading.Thread(target=self._listen, name="sigterm", daemon=True).start()
        before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        if before != self._pipe[1]:
            self._pipe_before = before
        signal.signal(signal.SIGTERM, self._hear)

    @contextmanager
    def answering(self, answer: Callable[[], None]) -> Iterator[None]:
        """Call ``answer`` at the first signal inside the ``with`` block, in place of leaving; in the main thread."""
        before = signal.getsignal(signal.SIGTERM)
        self.begin()
        self._answer = answer
        try:
            yield
        finally:
            self._answer = _leave
            if before != self._hear:
                signal.signal(signal.SIGTERM, before)
                signal.set_wakeup_fd(self._pipe_before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self._is_answered:
            self._is_answered = True
            self._answer()

    def _listen(self) -> None:
        assert self._pipe is not None
        while True:
            if not select.select([self._pipe[0]], [], [], self._seconds_left())[0]:
                if self._seconds_left() == 0.0:  # else it has begun to hear anew
                    os._exit(TOLD_TO_END)
                continue
            for number in os.read(self._pipe[0], 64):
                if number == signal.SIGTERM and signal.getsignal(signal.SIGTERM) == self._hear:  # else it is another's
                    self._count(time.monotonic())

    def _count(self, now: float) -> None:
        if self._first is None:
            self._first, self._is_leaving = now, self._answer is _leave
        elif now - self._first > ONE_REQUEST_SECONDS:
            os._exit(TOLD_TO_END)

    def _seconds_left(self) -> float | None:
        """That this process has to unwind; None where it is not told to."""
        if self._first is None or not self._is_leaving:
            return None
        return max(0.0, self._first + UNWINDING_SECONDS - time.monotonic())

    def _leave_to_the_parent(self) -> None:
        """A forked child has the pipe, whose reader is the parent's thread."""
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(-1)


HEARING = Hearing()


def leave_on_sigterm() -> None:
    """From now on SIGTERM unwinds this process, so that a start which is ended early leaves nothing behind.

    The main thread's to say; from another nothing changes.

    Without it the signal ends the process on the spot: a rank that waits for a lost partner is ended so by its
    launcher, and its lock would stay in the run's folder. A second signal, two seconds after the first or later, ends
    the process at once.
    """
    if threading.current_thread() is threading.main_thread():
        HEARING.begin()
