"""A contender's processes: one for each rank, fresh, told from here when to step and asked what they took.

Two teams can be alive together and take turns, so that what else the machine does meets both. A team that waits
computes nothing; its memory is its own processes' and shows in no other's figures.
"""

from __future__ import annotations

import multiprocessing
import socket
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, TypeVar

import torch

from benchmarks.classifier.case import Case
from benchmarks.classifier.ranks import Failure, Footprint, Ranks, Turn

KILLED = -9
GOODBYE_SECONDS = 10
Answer = TypeVar("Answer")


class TeamError(RuntimeError):
    """A contender that could not go on, in one line; `is_out_of_memory`: for want of memory."""

    def __init__(self, message: str, *, is_out_of_memory: bool) -> None:
        super().__init__(message)
        self.is_out_of_memory = is_out_of_memory


class Team:
    """The processes of the contender `name`, for a `with` block that ends them. TeamError where one of them fails."""

    def __init__(self, name: str, case: Case) -> None:
        self.name = name
        self._is_stuck = False  # ranks that wait for a dead one need not be waited for
        self._connections: list[Connection[Any, Any]] = []
        context = multiprocessing.get_context("forkserver")  # a process in which torch is loaded and has done nothing
        context.set_forkserver_preload([Ranks.__module__])
        self._processes: list[multiprocessing.context.ForkServerProcess] = []
        ranks = Ranks(name, case, _free_port(), max(1, torch.get_num_threads() // case.world))
        for rank in range(case.world):
            here, there = context.Pipe()
            process = context.Process(target=ranks.run, args=(rank, there), name=f"{name}, rank {rank}")
            process.start()
            there.close()  # the child has its own: when it dies, this end hears of it
            self._processes.append(process)
            self._connections.append(here)

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def making_seconds(self) -> float:
        """Wait until the classifier is made; how long that took its slowest rank."""
        return max(self._answers(float))

    def turn(self, steps: int) -> Turn:
        """Run `steps` steps; a step takes as long as its slowest rank."""
        self._tell(steps)
        turns = self._answers(Turn)
        return Turn([max(of_ranks) for of_ranks in zip(*(turn.seconds for turn in turns), strict=True)], turns[0].loss)

    def footprints(self) -> list[Footprint]:
        """What each rank has taken, in rank order; the team is then done."""
        self._tell(None)
        return self._answers(Footprint)

    def end(self) -> None:
        """End every process that does not end by itself."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(0 if self._is_stuck else GOODBYE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()

    def _tell(self, order: int | None) -> None:
        for rank, connection in enumerate(self._connections):
            try:
                connection.send(order)
            except (BrokenPipeError, ConnectionResetError):  # noqa: PERF203, as many rounds as ranks
                raise self._death(rank) from None

    def _answers(self, kind: type[Answer]) -> list[Answer]:
        """Each rank's answer, in rank order, heard as they come: one that fails before those that it holds up."""
        answers: dict[int, Answer] = {}
        while len(answers) < len(self._connections):
            waiting = {self._connections[rank]: rank for rank in range(len(self._connections)) if rank not in answers}
            for connection in wait(list(waiting)):
                assert isinstance(connection, Connection)
                answers[waiting[connection]] = self._answer(waiting[connection], kind)
        return [answers[rank] for rank in range(len(answers))]

    def _answer(self, rank: int, kind: type[Answer]) -> Answer:
        try:
            answer = self._connections[rank].recv()
        except (EOFError, ConnectionResetError):
            raise self._death(rank) from None
        if isinstance(answer, Failure):
            self._is_stuck = True
            raise TeamError(f"{self.name}: {answer.message}", is_out_of_memory=answer.is_out_of_memory)
        assert isinstance(answer, kind), (kind, answer)
        return answer

    def _death(self, rank: int) -> TeamError:
        self._is_stuck = True
        self._processes[rank].join(GOODBYE_SECONDS)
        code = self._processes[rank].exitcode
        why = "was killed: out of memory, most likely" if code == KILLED else f"ended with exit code {code}"
        return TeamError(f"{self.name}: rank {rank} {why}", is_out_of_memory=code == KILLED)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
