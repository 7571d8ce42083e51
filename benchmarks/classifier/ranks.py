"""One rank of a contender, in a process of its own: it makes the classifier, steps when told to, says what it took."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.classifier.case import Case
from benchmarks.classifier.contenders import Contender, contender
from benchmarks.memory import peak_memory
from benchmarks.workers import Serving, Workers
from partial_fc.world import World, process_group

REHEARSAL_CLASSES = 256


@dataclass(frozen=True)
class Turn:
    """Some steps of one rank: the time of each, and the loss of the last."""

    seconds: list[float]
    loss: float


@dataclass(frozen=True)
class Footprint:
    """What one rank took, in bytes. The peak is above what its process held before the classifier was made."""

    peak_bytes: int
    weight_bytes: int
    state_bytes: int


def rank_processes(name: str, case: Case) -> Workers:
    """The processes of the contender `name`, one for each rank."""
    threads = max(1, torch.get_num_threads() // case.world)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return Workers(name, rank_worker, name, case, port, threads, count=case.world)


def rank_worker(rank: int, name: str, case: Case, port: int, threads: int) -> Serving:
    """Answers when the classifier is made; then with a `Turn` to each number of steps; to 0 with a `Footprint`."""
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{case.world}"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    if case.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else the ranks would meet over NCCL
    torch.set_num_threads(threads)
    with process_group() as world:
        yield from _measured(name, case, world, torch.device(case.device))


def _measured(name: str, case: Case, world: World, device: torch.device) -> Serving:
    small = replace(
        case, num_classes=max(REHEARSAL_CLASSES, world.size)
    )  # what loads but once is no classifier's memory
    _turn(contender(name, small, world, device), small, world, device, range(1))
    memory = peak_memory(device)
    start_bytes = memory.now_bytes()
    classifier = contender(name, case, world, device)
    memory.begin()
    steps, first = (yield "made"), 0
    while steps:
        turn = _turn(classifier, case, world, device, range(first, first + steps))
        first += steps
        steps = yield turn
    yield Footprint(memory.peak_bytes() - start_bytes, classifier.weight_bytes, classifier.state_bytes)


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
