"""Processes that work when told to: what is compared runs in processes of its own, and takes turns.

Several groups of workers can be alive together, so that what else the machine does meets all of them. A group that
waits computes nothing; its memory is its own processes' and shows in no other's figures.
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Generator
from contextlib import closing
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from benchmarks.results import CaseError

Serving = Generator[Any, Any, None]  # what it yields is the answer; what it is then sent is the next order
KILLED = -9
GOODBYE_SECONDS = 10


class WorkerError(CaseError):
    """Workers that cannot go on, in one line."""


class WorkerMemoryError(WorkerError):
    """Workers that cannot go on for want of memory."""


class Workers:
    """`count` processes of `serve(number, *arguments)`, for a `with` block that ends them. `name` is for messages."""

    def __init__(self, name: str, serve: Callable[..., Serving], *arguments: Any, count: int = 1) -> None:
        self.name = name
        self._connections: list[Connection[Any, Any]] = []
        self._processes: list[multiprocessing.context.ForkServerProcess] = []
        context = multiprocessing.get_context("forkserver")  # a process in which torch is loaded and has done nothing
        context.set_forkserver_preload([serve.__module__])
        for number in range(count):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(there, serve, number, *arguments), name=f"{name}, {number}")
            process.start()
            there.close()  # the child has its own: when it dies, this end hears of it
            self._processes.append(process)
            self._connections.append(here)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end(at_once=kind is not None)  # workers may wait for a dead one

    def end(self, *, at_once: bool) -> None:
        """End the processes: by asking them to, or at once."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(0 if at_once else GOODBYE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()

    def ask(self, order: Any) -> list[Any]:
        """Each worker's answer to `order`, in their order. WorkerError where one fails."""
        for number, connection in enumerate(self._connections):
            try:
                connection.send(order)
            except (BrokenPipeError, ConnectionResetError):  # noqa: PERF203, as many rounds as workers
                raise self._death(number) from None
        return self.answers()

    def answers(self) -> list[Any]:
        """The first answers, heard as they come: a worker that fails before those that it holds up."""
        answers: dict[int, Any] = {}
        while len(answers) < len(self._connections):
            waiting = {connection: n for n, connection in enumerate(self._connections) if n not in answers}
            for connection in wait(list(waiting)):
                assert isinstance(connection, Connection)
                answers[waiting[connection]] = self._answer(waiting[connection])
        return [answers[number] for number in range(len(answers))]

    def _answer(self, number: int) -> Any:
        try:
            answer = self._connections[number].recv()
        except (EOFError, ConnectionResetError):
            raise self._death(number) from None
        if isinstance(answer, WorkerError):
            raise type(answer)(f"{self.name}: {answer}")
        return answer

    def _death(self, number: int) -> WorkerError:
        self._processes[number].join(GOODBYE_SECONDS)
        code = self._processes[number].exitcode
        if code == KILLED:
            return WorkerMemoryError(f"{self.name}: process {number} was killed: out of memory, most likely")
        return WorkerError(f"{self.name}: process {number} ended with exit code {code}")


def _work(connection: Connection[Any, Any], serve: Callable[..., Serving], *arguments: Any) -> None:
    """The life of one worker: an answer, an order, an answer, ... until `serve` ends or nobody asks any more."""
    try:
        with closing(serve(*arguments)) as serving:
            connection.send(next(serving))
            while True:
                connection.send(serving.send(connection.recv()))
    except (StopIteration, EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except Exception as error:
        connection.send(_failure(error))


def _failure(error: Exception) -> WorkerError:
    line = str(error).strip().partition("\n")[0]
    if isinstance(error, ValueError):
        return WorkerError(line)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in line:
        return WorkerMemoryError(f"{type(error).__name__}: {line}")
    traceback.print_exc()
    return WorkerError(f"{type(error).__name__}: {line}")
