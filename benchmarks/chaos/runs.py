"""A run that meets faults, started again until it is done, and whether its end is that of another run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.faults import FILE_VARIABLE, Fault, FaultFile
from benchmarks.documents import DOCS
from partial_fc.checkpoint.layout import CheckpointFolder, latest_checkpoint

ROOT = DOCS.parent


@dataclass(frozen=True)
class Run:
    """A training in ``folder``, by ``nproc`` ranks whose agent starts them again ``max_restarts`` times."""

    folder: Path
    settings: dict[str, Any]
    faults: Sequence[Fault] = ()
    records: tuple[int, int] = (0, 0)
    nproc: int = 2
    max_restarts: int = 0

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints lie."""
        return self.folder / "run" / "checkpoints"

    @property
    def file(self) -> FaultFile:
        """Its faults, and the record of them."""
        return FaultFile(self.folder / "faults.json", self.faults, self.records, str(self.checkpoints))

    def trained(self, launches: int = 1, timeout_seconds: float = 3600.0) -> list[int]:
        """The exit codes of its agents: a new one is started until one of them is done, or there were ``launches``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.yaml"
        config.write_text(json.dumps({**self.settings, "run_dir": str(self.folder / "run")}), encoding="utf-8")
        self.file.write()
        codes: list[int] = []
        while len(codes) < launches and 0 not in codes:
            codes.append(self._launched(config, timeout_seconds))
        return codes

    def said(self) -> str:
        """All that its processes printed."""
        return (self.folder / "said.txt").read_text(encoding="utf-8", errors="replace")

    def _launched(self, config: Path, timeout_seconds: float) -> int:
        words = ["-m", "benchmarks.chaos.agent", str(self.nproc), str(self.max_restarts), str(config)]
        environment = {**os.environ, FILE_VARIABLE: str(self.file.path), "OMP_NUM_THREADS": "1"}
        with (self.folder / "said.txt").open("ab") as said:
            command = [sys.executable, *words]
            agent = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)
            try:
                return agent.wait(timeout_seconds)
            finally:
                agent.terminate()


def differing_files(one: Path, other: Path) -> list[str]:
    """The files of two runs' last checkpoints that are not byte by byte the same; the manifests name their runs.

    ValueError where one of them is damaged.
    """
    folders = [CheckpointFolder(latest_checkpoint(each)) for each in (one, other)]
    if problems := [problem for folder in folders for problem in folder.problems()]:
        raise ValueError(problems[0])
    contents = [_contents(folder.path) for folder in folders]
    names = contents[0].keys() | contents[1].keys() | {folder.path.name for folder in folders}
    return sorted(name for name in names if contents[0].get(name) != contents[1].get(name))


def _contents(folder: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    return {**files, folder.name: b"the step"}


def settings(
    data: Path, steps: int, save_every: int, *, batch: int = 16, width: int = 8, side: int = 24, num_images: int = 192
) -> dict[str, Any]:
    """The configuration of a run of so many steps, with all that draws random numbers or keeps state."""
    network = {"name": "r18", "width": width, "embedding_dim": 16}
    return {
        "data": {"train": str(data), "image_size": side, "augmentation": {"mirror": 0.5, "crop": 0.3}},
        "backbone": {**network, "dropout": 0.2, "compile": False, "autocast": "float32"},
        "objective": {"name": "adacos"},
        "classifier": {"momentum": 0.9},
        "optimizer": {"learning_rate": 0.05},
        "schedule": {"epochs": steps * batch / num_images, "batch_size": batch},
        "report": {"every_steps": 4, "prometheus": False},
        "save_every_steps": save_every,
    }


def synthetic_set(folder: Path, identities: int, images: int, side: int) -> Path:
    """A small set of drawn faces at ``folder``, made if it is not there."""
    if not (folder / "train.rec").exists():
        sizes = ["--identities", str(identities), "--images", str(images), "--size", str(side)]
        words = ["-m", "launch.cli", "pack", "synthetic", *sizes, "--out", str(folder)]
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder
