"""How far a long piece of work has come, on standard error."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar(*, shown: bool = True) -> Progress:
    """A bar per task, with what is done, of how many, and how long the rest will take."""
    columns = TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), disable=not shown)


Job = TypeVar("Job")
Answer = TypeVar("Answer")


def process_pool(workers: int, begin: Callable[[], object] | None = None) -> Executor:
    """Workers that are spawned, since the fork of a process with threads can hang; one alone is a thread.

    Each calls `begin` before its first job. They end with this process, even where it is killed.
    """
    if workers == 1:
        return ThreadPoolExecutor(1, initializer=begin)
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(begin,))


def in_order(
    jobs: Iterable[Job], submit: Callable[[Job], Future[Answer]], most: int
) -> Iterator[tuple[Job, Future[Answer]]]:
    """Jobs in the order given, each with what it will come to, `most` submitted ahead of the one that is waited for."""
    waiting: deque[tuple[Job, Future[Answer]]] = deque()
    try:
        for job in jobs:
            waiting.append((job, submit(job)))
            if len(waiting) > most:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for _, future in waiting:
            future.cancel()


def _begin(begin: Callable[[], object] | None) -> None:
    _end_with_parent()
    if begin is not None:
        begin()


def _end_with_parent() -> None:
    # A worker waits on a queue that it could write to itself, so that it never learns that nobody else does.
    threading.Thread(target=_wait_for_parent, name="end with parent", daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
