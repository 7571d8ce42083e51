"""Some steps of the real trainer on a large set, watched from outside: its ranks' memory, and what it wrote."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.scale.probes import status_bytes
from launch.config.loading import resolved_yaml
from launch.config.run import Config

LOOK_SECONDS = 0.25
REPORTS = 60  # of a run
WARMUP_STEPS = 20
MEMORY = {"peak": "VmHWM", "own": "RssAnon"}
RANK_COMMAND = b"launch.train"
OBJECTIVES = ("p2sgrad", "adacos")
Report = dict[str, Any]


class TrainingError(RuntimeError):
    """The trainer ended with an error, which stands in the log that the message names."""


def training(
    data: Path, run_dir: Path, *, objective: str, images: int, size: int, batch: int, steps: int, ranks: int
) -> dict[str, Any]:
    """Figures of a training of `steps` steps of `batch` images on `ranks` ranks, from `run_dir/metrics.jsonl`."""
    config = training_config(data, run_dir, objective=objective, images=images, size=size, batch=batch, steps=steps)
    path = run_dir.with_name(f"{run_dir.name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(resolved_yaml(config))
    began = time.time()
    peaks = watched_ranks(["train", str(path), "--nproc", str(ranks)], run_dir.with_name(f"{run_dir.name}.log"))
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    memory = {f"{kind}_bytes_of_ranks": [peak[field] for peak in peaks] for kind, field in MEMORY.items()}
    return {**figures([json.loads(line) for line in lines], began), **memory}


def training_config(
    data: Path, run_dir: Path, *, objective: str, images: int, size: int, batch: int, steps: int
) -> Config:
    """A narrow network, so that the classifier is most of the work, and not compiled: a compiler takes minutes beside
    hundreds of steps. bfloat16 products, float32 rows without momentum."""
    epochs_per_step = batch / images
    tree = {
        "run_dir": run_dir,
        "data": {"train": data, "image_size": size},
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
    return Config.model_validate(tree)


def watched_ranks(words: list[str], log: Path) -> list[dict[str, int]]:
    """The most that each rank of `partial-fc` with these words had in memory, in bytes, by the fields of `MEMORY`.

    `VmHWM` is the kernel's own mark of all that is resident; `RssAnon`, what is the process's alone and in no file, is
    looked at four times a second. What a rank took in its last quarter of a second may be missing.
    """
    peaks: dict[int, dict[str, int]] = {}
    with log.open("wb") as output:
        command = [sys.executable, "-m", "launch.cli", *words]
        with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as trainer:
            while trainer.poll() is None:
                for process in ranks_under(trainer.pid):
                    peak = peaks.setdefault(process, dict.fromkeys(MEMORY.values(), 0))
                    for field in peak:
                        peak[field] = max(peak[field], status_bytes(process, field))
                time.sleep(LOOK_SECONDS)
    if trainer.returncode:
        raise TrainingError(f"partial-fc {' '.join(words)} ended with exit code {trainer.returncode}: see {log}")
    return [peaks[process] for process in sorted(peaks)]


def ranks_under(process: int) -> list[int]:
    """The processes below `process` that are ranks of a training."""
    found = []
    for child in children(process):
        found += [child] if RANK_COMMAND in text_of(child, "cmdline") else ranks_under(child)
    return found


def children(process: int) -> list[int]:
    """The processes that `process` started from its main thread."""
    return [int(child) for child in text_of(process, f"task/{process}/children").split()]


def text_of(process: int, name: str) -> bytes:
    """A file of `/proc/PID`; nothing where the process has ended."""
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


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
