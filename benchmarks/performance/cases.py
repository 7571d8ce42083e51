"""The cases of `make bench`: `cpu.json` and `cuda.json`.

In a name, n is the batch, c the classes, r the sampling rate, and what follows "dense" is the dense contender's own.
Those of the aims of docs/performance.md come first. Then P2SGrad without momentum from few classes to many, each in
turns with one number of classes, so that what else the machine does meets both; pairs with the dense one over the
classes, the batch and the sampling rate; and what occurs once. Dense steps over many classes take seconds (13 s at
C = 200,000, N = 1024 on two cores), so there are few; quick ones are more.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.classifier.case import OURS, Case
from benchmarks.results import read_json

BATCH = 512
CLASSES = {"cpu": 200_000, "cuda": 1_000_000}  # C where something else varies
CLASSES_OVER_BATCHES = {"cpu": 100_000, "cuda": 500_000}  # but where the batch does


@cache
def cases(device: str) -> dict[str, Case]:
    """Every case of a kind of device by its name."""
    table = read_json(Path(__file__).with_name(f"{device}.json"), dict[str, dict[str, Any]])
    return {name: Case(**settings, device=device) for name, settings in table.items()}


def over_classes(device: str) -> list[str]:
    """The names of the cases whose time per class is asked to be flat."""
    return [name for name, case in cases(device).items() if case.against == OURS and not case.compares_losses]
