"""What the figures of a step cost it: marks of its phases, sums, reports, Prometheus, JSON lines.

    python -m benchmarks.metrics

All that a step and a report do for the figures is done again and again without a training, and timed. In the same run
the step is timed that it is compared with: the network of configs/omniglot.yaml with AdaCos, at 28 pixels, without
reports and not compiled. With `--device cuda` events in the stream mark the phases, as in a training there.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.arguments import parser
from benchmarks.machine import this_machine
from partial_fc import AdaCos, RowSGD, ShardedClassifier
from partial_fc.backbones import backbone
from partial_fc.reports.json_lines import JsonLinesSink
from partial_fc.reports.meter import Meter
from partial_fc.reports.prometheus import PrometheusSink
from partial_fc.reports.traffic import Traffic

CLASSES, DIM, BATCH, SIDE, WIDTH = 3856, 256, 256, 28, 16
EVERY_STEPS, REPORTS, STEPS, COLLECTIVES = 20, 50, 10, 8
MOST_SHARE = 0.005


def main(argv: Sequence[str] | None = None) -> int:
    """Time both and print them. 1 where the figures cost more than half a hundredth of the step."""
    made = parser("metrics", __doc__)
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    device = torch.device(made.parse_args(argv).device)
    cost, step = figures_seconds(device), step_seconds(device)
    print(f"{this_machine(device.type)}")
    print(
        f"figures {1e6 * cost:.0f} µs a step, a report every {EVERY_STEPS}: {100 * cost / step:.3f} % of {step:.4f} s"
    )
    return int(cost > MOST_SHARE * step)


def figures_seconds(device: torch.device) -> float:
    """Seconds that the figures of one step take, those of its report shared among the steps: the median."""
    traffic, tensor = Traffic(), torch.ones((), device=device)
    meter = Meter(total_steps=10**6, images_per_epoch=BATCH, device=device, traffic=traffic)
    facts: dict[str, Any] = {"version": "0", "objective": "adacos", "num_classes": CLASSES, "world_size": 1}
    with tempfile.TemporaryDirectory() as folder:
        sinks = (PrometheusSink(run="cost", port=0, **facts), JsonLinesSink(Path(folder) / "metrics.jsonl"))

        def interval() -> None:
            for _ in range(EVERY_STEPS):
                for phase in ("forward", "head", "backward", "update"):
                    meter.begin(phase)
                for _ in range(COLLECTIVES):
                    with traffic.waiting(tensor):
                        pass
                figures = {"loss": tensor, "scale": tensor, "median_target_angle_radians": tensor}
                extra = {"scale_capped": tensor}
                meter.observe(images=BATCH, data_wait_seconds=0.0, gradient_norm=tensor, extra=extra, **figures)
            report = meter.report(learning_rate=0.1, row_learning_rate=0.1)
            for sink in sinks:
                sink.write(report)

        seconds = median(timed(interval, device) for _ in range(REPORTS)) / EVERY_STEPS
        for sink in sinks:
            sink.close()
    return seconds


def step_seconds(device: torch.device) -> float:
    """Seconds of one step of the training: the median."""
    network: nn.Module = backbone("r18", width=WIDTH, embedding_dim=DIM, input_size=SIDE).to(device)
    head = ShardedClassifier(CLASSES, DIM, AdaCos(CLASSES), row_optimizer=RowSGD(0.005, momentum=0.9)).to(device)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    images = torch.randn(BATCH, 3, SIDE, SIDE, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (BATCH,), device=device)

    def step() -> None:
        head(network(images), labels).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    return median([timed(step, device) for _ in range(STEPS + 2)][2:])


def timed(work: Callable[[], None], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
