"""The real trainer, `partial-fc train`, in processes of its own, and what it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.documents import DOCS
from launch.assembly.run_folder import RunFolder

ROOT = DOCS.parent


def trainer_words(config: Path, settings: Mapping[str, Any], nproc: str) -> list[str]:
    """The trainer's arguments: a configuration, and what differs from it by dotted key. Paths become absolute."""
    values = {key: str(value.resolve()) if isinstance(value, Path) else value for key, value in settings.items()}
    overrides = (f"{key}={json.dumps(value)}" for key, value in values.items())  # JSON is YAML
    return [str(config), "--nproc", nproc, *(word for override in overrides for word in ("--set", override))]


def run_trainer(words: Sequence[str], log: Path) -> int:
    """The exit code of the trainer with these arguments; all that it prints goes into `log`.

    The trainer ends before this call does, whatever ends the call.
    """
    command = [sys.executable, "-m", "launch.cli", "train", *words]
    with log.open("wb") as file, subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()  # its ranks end with it
            raise


def reports(run_dir: Path) -> list[dict[str, Any]]:
    """What the training in `run_dir` reported, line by line."""
    path = RunFolder(run_dir).metrics
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
