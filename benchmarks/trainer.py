"""The real trainer, `partial-fc train`, in processes of its own, and what it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import CaseError
from launch.assembly.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
LOOK_SECONDS = 0.25
Report = dict[str, Any]


class TrainingError(CaseError):
    """The trainer ended with an error, which stands in the log that the message names."""


def run_trainer(words: Sequence[str], log: Path, watch: Callable[[int], object] = lambda process: None) -> int:
    """The exit code of the trainer with these words; all that it prints goes into `log`.

    `watch` gets its process four times a second. The trainer ends before this call does, whatever ends the call.
    """
    command = [sys.executable, "-m", "launch.cli", "train", *words]
    with (
        log.open("wb") as file,
        subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        try:
            while process.poll() is None:
                watch(process.pid)
                time.sleep(LOOK_SECONDS)
        except BaseException:
            process.terminate()  # its ranks end with it
            process.wait()
            raise
    return process.returncode


def train(
    settings: Mapping[str, Any], run_dir: Path, *, ranks: int, watch: Callable[[int], object] = lambda process: None
) -> list[Report]:
    """The reports of a training with these settings in the new folder `run_dir`. TrainingError where it fails."""
    config, log = run_dir.with_name(f"{run_dir.name}.yaml"), run_dir.with_name(f"{run_dir.name}.log")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps({**settings, "run_dir": str(run_dir.resolve())}))  # JSON is YAML
    if code := run_trainer([str(config.resolve()), "--nproc", str(ranks)], log, watch):
        raise TrainingError(f"partial-fc train {config} ended with exit code {code}: see {log}")
    return reports(run_dir)


def reports(run_dir: Path) -> list[Report]:
    """What the training in `run_dir` reported, line by line."""
    path = RunFolder(run_dir).metrics
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
