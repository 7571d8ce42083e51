"""The runs of the loss comparison: `runs.json` is the table, most informative first.

Every run is `configs/omniglot.yaml` at 28 pixels on one short schedule; only what stands in the table differs. A
softmax loss has slopes of up to its scale, P2SGrad of up to its slope scale, and `RowSGD` steps a row by learning rate
times slope: so the rate of the rows is `ROW_STEP / scale` but where rates are compared (group "rates"), and a loss is
not judged by the length of its steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.results import read_json
from partial_fc.functional.adacos import fixed_scale

EPOCHS = 2.0  # of 77,120 images: about 3 minutes a run on one core
IMAGE_SIZE = 28  # half the pixels of the shipped 40: twice as many runs
WARMUP_SHARE = 0.25  # of the epochs
REPORT_EVERY_STEPS = 10
NUM_CLASSES = 3856  # 964 characters in four rotations
ADACOS_SCALE = fixed_scale(NUM_CLASSES)  # 11.68
ROW_STEP = 0.005 * ADACOS_SCALE  # radians per image at full slope: the rate found good for AdaCos
LOSSES, RATES, NOISE, BEYOND, LONG = "losses", "rates", "noise", "beyond", "long"


@dataclass(frozen=True)
class Run:
    """One row of the table: a loss, its learning rates, the share of wrong labels, and the seeds worth the time.

    `varied` is the value of what a group of `claims.py` varies; `more` are settings by dotted key.
    """

    name: str
    label: str
    group: str
    objective: Mapping[str, bool | float | str]
    row_learning_rate: float
    backbone_learning_rate: float = 1.2
    label_noise: float = 0.0
    epochs: float | None = None
    stages: tuple[Mapping[str, Any], ...] = ()
    seeds: tuple[int, ...] = (0,)
    image_size: int = IMAGE_SIZE
    train: str = "background"
    evaluate: str = "evaluation"
    varied: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, seed: int, epochs: float = EPOCHS) -> dict[str, object]:
        """What differs from `configs/omniglot.yaml`, by dotted key; no path is among it.

        `epochs` are those of a run that says none.
        """
        epochs = self.epochs or epochs
        return {
            "seed": seed,
            "objective": dict(self.objective),
            "data.label_noise": self.label_noise,
            "data.image_size": self.image_size,
            "classifier.learning_rate": self.row_learning_rate,
            "optimizer.learning_rate": self.backbone_learning_rate,
            "schedule.epochs": epochs,
            "schedule.warmup_epochs": WARMUP_SHARE * epochs,
            "report.every_steps": REPORT_EVERY_STEPS,
            "report.prometheus": False,
            **({"schedule.stages": [dict(stage) for stage in self.stages]} if self.stages else {}),
            **self.more,
        }


RUNS = read_json(Path(__file__).with_name("runs.json"), tuple[Run, ...])


def plan(runs: Sequence[Run]) -> list[tuple[Run, int]]:
    """(run, seed) in the order to run them: the first seed of everything, then the next."""
    order = sorted({seed for run in runs for seed in run.seeds})
    return [(run, seed) for seed in order for run in runs if seed in run.seeds]
