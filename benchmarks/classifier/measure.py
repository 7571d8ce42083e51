"""Contenders measured in turns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone

import torch

from benchmarks.classifier.case import DENSE, OURS, Case
from benchmarks.classifier.contenders import check_foreign_file
from benchmarks.classifier.floors import measured_rates, step_floors
from benchmarks.classifier.ranks import Footprint
from benchmarks.classifier.records import Measurement, Record
from benchmarks.classifier.teams import Team, TeamError
from benchmarks.machine import this_machine


def measured(case: Case, progress: Callable[[str], None] = lambda line: None) -> Record:
    """The record of `case`. TeamError where a contender fails, but for another that finds too little memory.

    The machine's rates are measured before and after, and the better ones kept.
    """
    device = torch.device(case.device)
    rates = measured_rates(device)
    contenders = [(OURS, case), *([] if case.against is None else [(case.against, case.case_against)])]
    with ExitStack() as stack:
        scores = [_Score(stack.enter_context(Team(name, its_case)), its_case) for name, its_case in contenders]
        failure = _contest(scores, _acts(case, progress))
    rates = rates.or_better(measured_rates(device))
    measurements = [score.measurement() for score in scores]
    return Record(
        case=case,
        ours=measurements[0],
        against=measurements[1] if len(measurements) == 2 else None,
        against_failure=failure,
        rates=rates,
        floors=step_floors(case.work, rates, devices=case.world if case.device == "cuda" else 1),
        machine=this_machine(case.device),
        date=datetime.now(timezone.utc).date().isoformat(),
    )


class _Score:
    """One team and what it has shown so far."""

    def __init__(self, team: Team, case: Case) -> None:
        self.team = team
        self.case = case
        self.making_seconds = 0.0
        self.seconds: list[float] = []
        self.loss = float("nan")
        self.ranks: list[Footprint] = []

    def make(self) -> None:
        """Wait for the classifier."""
        self.making_seconds = self.team.making_seconds()

    def warm_up(self) -> None:
        """Steps that do not count."""
        self.team.turn(self.case.warm_up)

    def play(self) -> None:
        """One turn."""
        turn = self.team.turn(min(self.case.steps_per_turn, self.case.steps - len(self.seconds)))
        self.seconds += turn.seconds
        self.loss = turn.loss

    def end(self) -> None:
        """Ask what it all took."""
        self.ranks = self.team.footprints()

    def measurement(self) -> Measurement:
        """All of it, when it is over."""
        return Measurement(self.team.name, self.seconds, self.making_seconds, self.loss, self.ranks)


def _acts(case: Case, progress: Callable[[str], None]) -> list[Callable[[_Score], None]]:
    """What every contender does, in order; each act is one of ours, then the other's."""

    def play(score: _Score) -> None:
        score.play()
        progress(f"{score.team.name}: {len(score.seconds)}/{case.steps}, {score.seconds[-1]:.4f} s")

    turns = -(-case.steps // case.steps_per_turn)
    return [_Score.make, _Score.warm_up, *[play] * turns, _Score.end]


def _contest(scores: list[_Score], acts: Sequence[Callable[[_Score], None]]) -> str | None:
    """Let the `scores` take turns through all `acts`. One that lacks memory, unless it is ours, is struck off them, and
    the answer says why.
    """
    failure = None
    for act in acts:
        for score in list(scores):
            try:
                act(score)
            except TeamError as error:  # noqa: PERF203, each act runs for seconds
                if score is scores[0] or not error.is_out_of_memory:
                    raise
                failure = str(error)
                score.team.end()
                scores.remove(score)
    return failure


def check_machine(case: Case) -> None:
    """ValueError where this machine or the disk lacks what the case needs."""
    if case.device == "cuda" and torch.cuda.device_count() < case.world:
        raise ValueError(f"world={case.world} on cuda: this machine has {torch.cuda.device_count()} CUDA devices")
    if case.against not in (None, DENSE, OURS):
        check_foreign_file(str(case.against))


def print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
