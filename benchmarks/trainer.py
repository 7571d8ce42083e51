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
NARROW = Path(__file__).with_name("narrow.yaml")
LOOK_SECONDS = 0.25
Report = dict[str, Any]
Watch = Callable[[int], object]


class TrainingError(CaseError):
    """The trainer ended with an error, which stands in the log that the message names."""


def trainer_words(config: Path, settings: Mapping[str, Any], nproc: str) -> list[str]:
    """The trainer's arguments: a configuration, and what differs from it by dotted key. Paths become absolute."""
    values = {key: str(value.resolve()) if isinstance(value, Path) else value for key, value in settings.items()}
    overrides = (f"{key}={json.dumps(value)}" for key, value in values.items())  # JSON is YAML
    return [str(config), "--nproc", nproc, *(word for override in overrides for word in ("--set", override))]


def run_trainer(words: Sequence[str], log: Path, watch: Watch = lambda process: None) -> int:
    """The exit code of the trainer with these arguments; all that it prints goes into `log`.

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
    settings: Mapping[str, Any], run_dir: Path, *, ranks: int, watch: Watch = lambda process: None
) -> list[Report]:
    """The reports of a training of the narrow network in the new folder `run_dir`. TrainingError where it fails."""
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    log = run_dir.with_name(f"{run_dir.name}.log")
    if code := run_trainer(trainer_words(NARROW, {**settings, "run_dir": run_dir}, str(ranks)), log, watch):
        raise TrainingError(f"the training into {run_dir} ended with exit code {code}: see {log}")
    return reports(run_dir)


def reports(run_dir: Path) -> list[Report]:
    """What the training in `run_dir` reported, line by line."""
    path = RunFolder(run_dir).metrics
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
