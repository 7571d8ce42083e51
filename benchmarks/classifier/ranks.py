"""One rank of a contender, in a process of its own: it makes the classifier, steps when told to, says what it took."""

from __future__ import annotations

import os
import time
import traceback
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from benchmarks.classifier.case import Case
from benchmarks.classifier.contenders import Contender, contender
from benchmarks.memory import peak_memory
from partial_fc.world import World, process_group

REHEARSAL_CLASSES = 256


@dataclass(frozen=True)
class Turn:
    """Some steps of one rank: the time of each, and the loss of the last."""

    seconds: list[float]
    loss: float


@dataclass(frozen=True)
class Footprint:
    """What one rank took, in bytes. Peaks are above what its process held before the classifier was made."""

    peak_bytes: int
    making_peak_bytes: int
    weight_bytes: int
    state_bytes: int


@dataclass(frozen=True)
class Failure:
    """What a rank says instead of an answer when it cannot go on, in one line."""

    message: str
    is_out_of_memory: bool


@dataclass(frozen=True)
class Ranks:
    """What every process of a contender is told at its start; `run` is the life of one."""

    name: str
    case: Case
    port: int
    threads: int

    def run(self, rank: int, connection: Connection[Any, Any]) -> None:
        """Answer with the seconds of the making; then a `Turn` to each number of steps; to None with a `Footprint`."""
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(self.case.world),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(self.port),
        )
        if self.case.device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else the ranks would meet over NCCL
        torch.set_num_threads(self.threads)
        try:
            with process_group() as world:
                self._serve(world, connection)
        except (EOFError, BrokenPipeError, KeyboardInterrupt):
            return  # the other end is gone: nobody waits for an answer
        except Exception as error:
            failure = Failure(_one_line(error), _is_out_of_memory(error))
            if not isinstance(error, ValueError) and not failure.is_out_of_memory:
                traceback.print_exc()
            connection.send(failure)

    def _serve(self, world: World, connection: Connection[Any, Any]) -> None:
        device = torch.device(self.case.device)
        self._rehearse(world, device)
        memory = peak_memory(device)
        start_bytes = memory.now_bytes()
        memory.begin()
        began = time.perf_counter()
        classifier = contender(self.name, self.case, world, device)
        connection.send(time.perf_counter() - began)
        making_peak_bytes = memory.peak_bytes() - start_bytes
        memory.begin()
        first = 0
        while (steps := connection.recv()) is not None:
            connection.send(_turn(classifier, self.case, world, device, range(first, first + steps)))
            first += steps
        peak_bytes = memory.peak_bytes() - start_bytes
        connection.send(Footprint(peak_bytes, making_peak_bytes, classifier.weight_bytes, classifier.state_bytes))

    def _rehearse(self, world: World, device: torch.device) -> None:
        """One step of a small twin: what a process loads and starts but once is not the classifier's memory."""
        small = replace(self.case, num_classes=max(REHEARSAL_CLASSES, world.size))
        _turn(contender(self.name, small, world, device), small, world, device, range(1))


def random_batch(case: Case, rank: int, number: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """This rank's `(n, D)` unit embeddings, which want a gradient, and `(n,)` labels: the same for every contender."""
    generator = torch.Generator(device).manual_seed(1_000_003 * number + rank)
    n = case.batch // case.world
    rows = torch.randn(n, case.embedding_dim, generator=generator, device=device)
    labels = torch.randint(case.num_classes, (n,), generator=generator, device=device)
    return torch.nn.functional.normalize(rows).requires_grad_(), labels


def _turn(classifier: Contender, case: Case, world: World, device: torch.device, numbers: range) -> Turn:
    """The steps with these `numbers`, each with a batch made before its clock starts; ranks start a step together."""
    seconds: list[float] = []
    loss = torch.tensor(float("nan"))
    for number in numbers:
        embeddings, labels = random_batch(case, world.rank, number, device)
        world.barrier()
        _finish(device)
        began = time.perf_counter()
        loss = classifier.step(embeddings, labels)
        _finish(device)
        seconds.append(time.perf_counter() - began)
    return Turn(seconds, float(loss))


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _one_line(error: BaseException) -> str:
    first = str(error).strip().partition("\n")[0]
    return first if isinstance(error, ValueError) else f"{type(error).__name__}: {first}"
