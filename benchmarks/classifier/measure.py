"""Contenders measured in turns, each in processes of its own, one for each rank."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.classifier.case import CHUNKED, DENSE, OURS, Case
from benchmarks.classifier.ceilings import measured_ceilings, step_floors
from benchmarks.classifier.contenders import Contender, check_foreign_file, contender
from benchmarks.classifier.records import Footprint, Measurement, Record
from benchmarks.machine import this_machine
from benchmarks.memory import peak_memory
from benchmarks.workers import Serving, WorkerMemoryError, Workers
from partial_fc.world import World, process_group

REHEARSAL_CLASSES = 256
THE_OTHER = "against"


def measured(case: Case, progress: Callable[[str], None] = lambda line: None) -> Record:
    """The record of `case`. WorkerError where a contender fails, but for another that finds too little memory.

    The machine's ceilings are measured before and after, and the better ones kept.
    """
    device = torch.device(case.device)
    ceilings = measured_ceilings(device)
    contenders = {OURS: (OURS, case)} | ({} if case.against is None else {THE_OTHER: (case.against, case.case_against)})
    with ExitStack() as stack:
        ranks = {role: stack.enter_context(rank_processes(*contender)) for role, contender in contenders.items()}
        found, failure = _in_turns(case, ranks, progress)
    ceilings = ceilings.or_better(measured_ceilings(device))
    return Record(
        case=case,
        ours=found[OURS],
        against=found.get(THE_OTHER),
        against_failure=failure,
        rates=ceilings,
        floors=step_floors(case, ceilings),
        machine=this_machine(case.device),
        date=datetime.now(timezone.utc).date().isoformat(),
    )


def check_machine(case: Case) -> None:
    """ValueError where this machine or the disk lacks what the case needs."""
    if case.device == "cuda" and torch.cuda.device_count() < case.world:
        raise ValueError(f"world={case.world} on cuda: this machine has {torch.cuda.device_count()} CUDA devices")
    if case.against not in (None, DENSE, CHUNKED, OURS):
        check_foreign_file(str(case.against))


def _in_turns(
    case: Case, ranks: Mapping[str, Workers], progress: Callable[[str], None]
) -> tuple[dict[str, Measurement], str | None]:
    """What is measured of each contender, stage by stage in turns: made, warmed up, some steps, ..., its memory.

    The other one, where it lacks memory, is left out, and the second answer says why.
    """
    going, failures, seconds = dict(ranks), list[str](), {role: list[float]() for role in ranks}
    losses = dict.fromkeys(ranks, math.nan)
    _round(going, None, failures)
    _round(going, case.warm_up, failures)
    for first in range(0, case.steps, case.steps_per_turn):
        for role, turns in _round(going, min(case.steps_per_turn, case.steps - first), failures).items():
            seconds[role] += [max(of_ranks) for of_ranks in zip(*(turn.seconds for turn in turns), strict=True)]
            losses[role] = turns[0].loss
            progress(f"{going[role].name}: {len(seconds[role])}/{case.steps}, {seconds[role][-1]:.4f} s")
    footprints = _round(going, 0, failures)
    found = {role: Measurement(going[role].name, seconds[role], losses[role], footprints[role]) for role in footprints}
    return found, next(iter(failures), None)


def _round(going: dict[str, Workers], order: int | None, failures: list[str]) -> dict[str, list[Any]]:
    """What each contender that is `going` answers to `order`, or first of all. The other is dropped if memory fails."""
    answers = {}
    for role, ranks in list(going.items()):
        try:
            answers[role] = ranks.answers() if order is None else ranks.ask(order)
        except WorkerMemoryError as error:  # noqa: PERF203, as many rounds as contenders
            if role == OURS:
                raise
            going.pop(role).end(at_once=True)  # its memory is the first one's from here on
            failures.append(str(error))
    return answers


@dataclass(frozen=True)
class Turn:
    """Some steps of one rank: the time of each, and the loss of the last."""

    seconds: list[float]
    loss: float


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
    # One step of a small twin first: what a process loads and starts but once is not the classifier's memory.
    small = replace(case, num_classes=max(REHEARSAL_CLASSES, world.size))
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


def at_45_degrees(embeddings: Tensor, labels: Tensor, module: nn.Module) -> Tensor:
    """Unit embeddings at about 45 degrees to the rows of their classes, as a trained network has them."""
    (rows_CD,) = module.parameters()
    own = torch.nn.functional.normalize(rows_CD.detach()[labels])
    return torch.nn.functional.normalize(embeddings.detach() + own).requires_grad_()


def _turn(classifier: Contender, case: Case, world: World, device: torch.device, numbers: range) -> Turn:
    """The steps with these `numbers`, each with a batch made before its clock starts; ranks start a step together."""
    seconds: list[float] = []
    loss = torch.tensor(float("nan"))
    for number in numbers:
        embeddings, labels = random_batch(case, world.rank, number, device)
        if case.near_classes:
            embeddings = at_45_degrees(embeddings, labels, classifier.module)
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
