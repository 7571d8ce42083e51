"""Measure whole training steps of the classifier, alone or in turns with another.

    python -m benchmarks.classifier --objective p2sgrad --num-classes 200000 --embedding-dim 512 --batch 512 --steps 5
    python -m benchmarks.classifier --objective adacos --num-classes 200000 --dtype bfloat16 --against dense --json OUT
    python -m benchmarks.classifier --objective cosface --num-classes 200000 --against heads/mine.py:MyHead

A step is forward, backward and the update of the rows, on random unit embeddings and labels made before its clock
starts. Each contender has processes of its own, one for each rank, and they take turns: ours, the other, ours, ...

`--against dense` is a plain model of what the field does (`dense_classifier.py`, always CosFace with s = 64, m = 0.4).
`--against PATH:CLASS` is any torch.nn.Module: made as CLASS(num_classes=, embedding_dim=), with sample_rate= where it
takes that, or as CLASS(margin_loss, embedding_size, num_classes, sample_rate) with CosFace for the margin; called as
module(embeddings, labels) for the loss; stepped by plain SGD with momentum. It meets the same batches.
`--against ours --against-num-classes C` is our own over another number of classes: does the time per class change?
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import MISSING, fields
from datetime import datetime, timezone
from pathlib import Path

import torch

from benchmarks.case import CHOICES, DENSE, OURS, Case
from benchmarks.contenders import check_foreign_file
from benchmarks.floors import measured_rates, step_floors
from benchmarks.machine import this_machine
from benchmarks.ranks import Footprint
from benchmarks.records import Measurement, Record, told, write_record
from benchmarks.teams import Team, TeamError

TYPES = {"int": int, "float": float}
HELP = {
    "objective": "the loss of our classifier",
    "num_classes": "C, over all ranks",
    "embedding_dim": "D",
    "batch": "N, the global batch: each rank brings N / world rows",
    "sample_rate": "the share of classes that a step looks at",
    "world": "ranks: processes over gloo on CPUs, NCCL on GPUs; on CPUs they share the threads",
    "device": "where",
    "dtype": "of the big products",
    "weight_dtype": "of the rows; bfloat16 is rounded stochastically",
    "cosines": "kept between the sweeps, made again, or as the memory allows",
    "gram": "whether P2SGrad goes without cosines; auto: where that is the shorter road",
    "row_optimizer": "of the rows, in the sweep of the gradient; none: weight.grad and torch's SGD",
    "momentum": "of SGD, for every contender; 0: no state",
    "state_dtype": "of the row optimizer's moments",
    "steps": "measured steps of each contender",
    "warm_up": "steps before those, not measured; their memory is",
    "steps_per_turn": "how many steps a contender makes before the other's turn",
    "against": "dense, PATH:CLASS, or ours over another number of classes",
    "against_num_classes": "of the other, where it is ours",
    "against_sample_rate": "the other's rate (default: ours)",
    "against_dtype": "of the dense contender's big products",
}


def main(argv: Sequence[str] | None = None) -> int:
    """0: measured; 1: a contender failed; 2: what was asked cannot be measured here."""
    arguments = _parser().parse_args(argv)
    try:
        case = Case(**{field.name: getattr(arguments, field.name) for field in fields(Case)})
        check_machine(case)
    except ValueError as error:
        print(f"classifier: {error}", file=sys.stderr)
        return 2
    try:
        record = measured(case, _print_progress)
    except TeamError as error:
        print(f"classifier: {error}", file=sys.stderr)
        return 1
    print("\n".join(told(record)))
    if arguments.json is not None:
        write_record(record, arguments.json)
    return 0


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


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.classifier",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for field in fields(Case):
        is_required = field.default is MISSING
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=TYPES.get(str(field.type).removesuffix(" | None"), str),
            choices=CHOICES.get(field.name),
            required=is_required,
            default=None if is_required else field.default,
            metavar=None if field.name in CHOICES else "dense|ours|PATH:CLASS" if field.name == "against" else "X",
            help=HELP[field.name] + ("" if is_required or field.default is None else " (default: %(default)s)"),
        )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the record here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
