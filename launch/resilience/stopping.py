"""SIGTERM, as Slurm, Kubernetes and spot machines send it: all ranks stop after the same step, and save."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from launch.resilience.hearing import HEARING
from partial_fc import World

ASKED_EVERY_STEPS = 8
Item = TypeVar("Item")


class GivenUp(Exception):  # noqa: N818  # the name says what happened
    """What was begun is not done, as the ranks have agreed to end."""


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

    def is_agreed(self, done: int) -> bool:
        """Whether the ranks end after ``done`` steps, all alike. An all-reduce of a number every 8 steps."""
        return self.was_agreed if done % ASKED_EVERY_STEPS else self.is_agreed_now()

    def is_agreed_now(self) -> bool:
        """Whether the ranks end here, all alike. An all-reduce of a number, unless they have agreed before."""
        if not self.was_agreed:
            self.was_agreed = bool(self._world.all_sum(torch.tensor(int(self._is_told), device=self._device)))
        return self.was_agreed

    def until_agreed(self, items: Iterable[Item], most: int) -> Iterator[Item]:
        """``items``, of which no rank has more than ``most``, until the ranks agree to end: asked at every eighth.

        To be taken to the end on every rank. Then :meth:`give_up` says whether that was the end of the items.
        """
        given = iter(items)
        for number in range(most):
            if self.is_agreed(number):
                return
            yield from itertools.islice(given, 1)

    def give_up(self) -> None:
        """Raise :class:`GivenUp`, on all ranks alike, where any was told to end."""
        if self.is_agreed_now():
            raise GivenUp

    def _hear(self) -> None:
        self._is_told = True
