"""SIGTERM, as Slurm, Kubernetes and spot machines send it: all ranks stop after the same step, and save."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from launch.resilience.hearing import HEARING
from partial_fc import World

ASKED_EVERY_STEPS = 8


class StopRequest:
    """Whether any rank was told to end, agreed by all of them every few steps."""

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
        with HEARING.answering(self._hear):
            yield self

    def is_agreed(self, done: int, *, is_last: bool = False) -> bool:
        """Whether the ranks end after ``done`` steps, all alike. An all-reduce of a number every 8 steps.

        ``is_last``: no step comes after these; it is asked whatever their number.
        """
        if done % ASKED_EVERY_STEPS and not is_last:
            return False
        self.was_agreed = bool(self._world.all_sum(torch.tensor(int(self._is_told), device=self._device)))
        return self.was_agreed

    def _hear(self) -> None:
        self._is_told = True
