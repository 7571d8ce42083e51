"""Contenders measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from datetime import datetime, timezone

import torch

from benchmarks.classifier.case import DENSE, OURS, Case
from benchmarks.classifier.ceilings import measured_ceilings, step_floors
from benchmarks.classifier.contenders import check_foreign_file
from benchmarks.classifier.ranks import rank_processes
from benchmarks.classifier.records import Measurement, Record
from benchmarks.machine import this_machine
from benchmarks.workers import WorkerMemoryError

Measuring = Generator[None, None, Measurement]


def measured(case: Case, progress: Callable[[str], None] = lambda line: None) -> Record:
    """The record of `case`. WorkerError where a contender fails, but for another that finds too little memory.

    The machine's ceilings are measured before and after, and the better ones kept.
    """
    device = torch.device(case.device)
    ceilings = measured_ceilings(device)
    contenders = [(OURS, case), *([] if case.against is None else [(case.against, case.case_against)])]
    found, failure = _in_turns([_measuring(name, its_case, progress) for name, its_case in contenders])
    ceilings = ceilings.or_better(measured_ceilings(device))
    return Record(
        case=case,
        ours=found[0],
        against=found[1] if len(found) == 2 else None,
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
    if case.against not in (None, DENSE, OURS):
        check_foreign_file(str(case.against))


def _measuring(name: str, case: Case, progress: Callable[[str], None]) -> Measuring:
    """The measurement of one contender, in stages: the classifier is made, warmed up, and steps turn by turn."""
    with rank_processes(name, case) as ranks:
        ranks.answers()
        yield
        ranks.ask(case.warm_up)
        yield
        seconds: list[float] = []
        while len(seconds) < case.steps:
            turns = ranks.ask(min(case.steps_per_turn, case.steps - len(seconds)))
            seconds += [max(of_ranks) for of_ranks in zip(*(turn.seconds for turn in turns), strict=True)]
            progress(f"{name}: {len(seconds)}/{case.steps}, {seconds[-1]:.4f} s")
            yield
        return Measurement(name, seconds, turns[0].loss, ranks.ask(0))


def _in_turns(measurings: Sequence[Measuring]) -> tuple[list[Measurement], str | None]:
    """What comes out when each goes on by a stage, then the next. One that lacks memory, unless it is the first, is
    left out, and the second answer says why.
    """
    found: list[Measurement] = []
    failure, going = None, list(measurings)
    with ExitStack() as stack:
        for measuring in measurings:
            stack.enter_context(closing(measuring))
        while going:
            for measuring in list(going):
                try:
                    next(measuring)
                    continue
                except StopIteration as end:
                    found.append(end.value)
                except WorkerMemoryError as error:
                    if measuring is measurings[0]:
                        raise
                    failure = str(error)
                going.remove(measuring)
    return found, failure
