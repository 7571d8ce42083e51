"""THE number: the minutes of a fixed run with a failure every 100 steps over its minutes without one."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.faults import Fault
from benchmarks.chaos.figures import start_up_seconds, training_seconds
from benchmarks.chaos.injector import MOMENT
from benchmarks.chaos.runs import Run, settings, synthetic_set

STEPS, STEPS_A_FAILURE, SAVE_EVERY = 400, 100, 10
SIDE, IMAGES = 56, 3200


@dataclass(frozen=True)
class Cost:
    """Seconds of training, start-up of processes left out, without failures and with them."""

    undisturbed_seconds: float
    disturbed_seconds: float
    start_ups_seconds: float  # of the disturbed run, all together
    failures: int
    steps: int
    save_every: int

    @property
    def ratio(self) -> float:
        """At most 1.10 is aimed at."""
        return self.disturbed_seconds / self.undisturbed_seconds


def measured_cost(folder: Path, seed: int) -> Cost:
    """Both runs, one after the other. RuntimeError where one of them does not end."""
    data = synthetic_set(folder / "set", identities=IMAGES // 8, images=8, side=SIDE)
    heavy = settings(data, STEPS, SAVE_EVERY, batch=64, width=16, side=SIDE, num_images=IMAGES)
    draw = random.Random(seed)
    firsts = range(0, STEPS, STEPS_A_FAILURE)
    faults = [Fault(draw.randrange(2), first + draw.randrange(50, 60), MOMENT) for first in firsts]
    undisturbed, disturbed = (
        Run(folder / "without", heavy),
        Run(folder / "with", heavy, faults, max_restarts=len(faults)),
    )
    for run in (undisturbed, disturbed):
        if run.trained() != [0]:
            raise RuntimeError(f"{run.folder} did not end: {run.said()[-2000:]}")
    events = disturbed.file.events()
    return Cost(
        training_seconds(undisturbed.file.events()),
        training_seconds(events),
        start_up_seconds(events),
        len(faults),
        STEPS,
        SAVE_EVERY,
    )
