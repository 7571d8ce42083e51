"""How long training waits for its data: the real loop, loader, backbone and classifier, for some steps."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch

from benchmarks.data.contenders import MIRROR, Task
from data_pipeline.loader.image_loader import ImageFormat, ImageLoader
from partial_fc import AdaCos, RowSGD, ShardedClassifier
from partial_fc.backbones import backbone
from partial_fc.loop import train
from partial_fc.reports.meter import Meter
from partial_fc.reports.step_report import StepReport

EMBEDDING_DIM, WIDTH = 128, 16
RATES = 0.01, 0.005


@dataclass(frozen=True)
class Wait:
    """The mean step of a training, and what of it was waiting for data."""

    name: str
    batch: int
    step_seconds: float
    wait_seconds: float


class LastReport:
    """A sink that keeps what it is told."""

    report: StepReport

    def write(self, report: StepReport) -> None:
        """Keep the report."""
        self.report = report

    def close(self) -> None:
        """Nothing is open."""


def measured_wait(task: Task, steps: range) -> Wait:
    """The wait of a small IResNet's training, on the CPU: `steps` are measured, those before them warm it up.

    One thread decodes, as `data.decode_threads` has it by default.
    """
    torch.manual_seed(task.seed)
    network = backbone("r18", embedding_dim=EMBEDDING_DIM, input_size=task.side, width=WIDTH)
    objective = AdaCos(task.source.num_classes)
    sink = LastReport()
    train(
        range(steps.stop),
        batches=ImageLoader(
            task.source,
            ImageFormat(task.side, task.side, channels_last=True),
            global_batch=task.batch,
            rank=0,
            size=1,
            seed=task.seed,
            augmentation=MIRROR,
        ),
        counts=[task.batch],
        backbone=network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        head=ShardedClassifier(task.source.num_classes, EMBEDDING_DIM, objective, row_optimizer=RowSGD(RATES[1])),
        optimizer=torch.optim.SGD(network.parameters(), lr=RATES[0], momentum=0.9),
        set_rates=lambda step: RATES,
        autocast=nullcontext,
        clip_norm=5.0,
        meter=Meter(total_steps=steps.stop, images_per_epoch=len(task.source)),
        sinks=[sink],
        report_every=steps.stop,
        save=lambda step: None,
        save_every=None,
    )
    report = sink.report
    durations = report.step_seconds_of_steps[steps.start :]
    waits = report.data_wait_seconds_of_steps[steps.start :]
    name = f"r18 of width {WIDTH}, {task.source.num_classes:,} classes"
    return Wait(name, task.batch, sum(durations) / len(steps), sum(waits) / len(steps))
