"""Some steps of the real trainer on a large set, watched from outside: its ranks' memory, and what it wrote."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.processes import ranks_under, status_bytes
from benchmarks.trainer import Report, train

REPORTS = 60  # of a run
WARMUP_STEPS = 20
MEMORY = {"peak": "VmHWM", "own": "RssAnon"}
OBJECTIVES = ("p2sgrad", "adacos")


def training(settings: Mapping[str, Any], run_dir: Path, *, ranks: int) -> dict[str, Any]:
    """Figures of a training with these settings on `ranks` ranks, and the most memory that each rank had.

    `VmHWM` is the kernel's own mark of all that is resident; `RssAnon`, what is the process's alone and in no file, is
    looked at four times a second. What a rank took in its last quarter of a second may be missing.
    """
    peaks: dict[int, dict[str, int]] = {}

    def look(trainer: int) -> None:
        for rank in ranks_under(trainer):
            peak = peaks.setdefault(rank, dict.fromkeys(MEMORY.values(), 0))
            peak |= {field: max(most, status_bytes(field, rank)) for field, most in peak.items()}

    began = time.time()
    reports = train(settings, run_dir, ranks=ranks, watch=look)
    memory = {
        f"{kind}_bytes_of_ranks": [peaks[rank][field] for rank in sorted(peaks)] for kind, field in MEMORY.items()
    }
    return {**figures(reports, began), **memory}


def training_settings(data: Path, *, objective: str, images: int, size: int, batch: int, steps: int) -> dict[str, Any]:
    """A narrow network, so that the classifier is most of the work, and not compiled: a compiler takes minutes beside
    hundreds of steps. bfloat16 products, float32 rows without momentum.
    """
    epochs_per_step = batch / images
    return {
        "data": {"train": str(data.resolve()), "image_size": size},
        "backbone": {"name": "r18", "width": 16, "embedding_dim": 128, "compile": False},
        "objective": {"name": objective},
        "classifier": {"products": "bfloat16", "learning_rate": 0.005},
        "optimizer": {"learning_rate": 0.2},
        "schedule": {
            "epochs": steps * epochs_per_step,
            "batch_size": batch,
            "warmup_epochs": min(WARMUP_STEPS, steps // 2) * epochs_per_step,
            "decay": "cosine",
        },
        "report": {"every_steps": max(steps // REPORTS, 1), "prometheus": False},
    }


def figures(reports: list[Report], began: float) -> dict[str, Any]:
    """What the reports of a run say of it; `began` is when its command was started."""
    first, last = reports[0], reports[-1]
    step_seconds = [report["step_seconds"] for report in reports]
    total_seconds = sum(report["interval_steps"] * report["step_seconds"] for report in reports)
    waited_seconds = sum(report["interval_steps"] * report["data_wait_seconds"] for report in reports)
    tenth = max(len(reports) // 10, 1)
    return {
        "steps": last["step"],
        "batch": first["interval_images"] // first["interval_steps"],
        "to_first_step_seconds": first["timestamp_seconds"] - first["interval_steps"] * first["step_seconds"] - began,
        "images_per_second": statistics.median(report["images_per_second"] for report in reports),
        "step_seconds": statistics.median(step_seconds),
        "least_step_seconds": min(step_seconds),
        "most_step_seconds": max(step_seconds),
        "wait_share": waited_seconds / total_seconds,
        "first_loss": statistics.mean(report["loss"] for report in reports[:tenth]),
        "last_loss": statistics.mean(report["loss"] for report in reports[-tenth:]),
    }
