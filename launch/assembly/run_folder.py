"""The folder of a run: the one home of its files' names."""

from __future__ import annotations

import itertools
from pathlib import Path


class RunFolder:
    """What a run, or an evaluation of it, leaves in the folder ``path``; none of it need be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"  # the whole configuration, defaults included
        self.metrics = path / "metrics.jsonl"  # the course of training, a line per interval
        self.tensorboard = path / "tensorboard"  # event files, where the run is told to write them
        self.checkpoints = path / "checkpoints"  # a folder per saved step
        self.evaluation = path / "evaluation.json"
        self.report = path / "report.html"

    def evaluation_of(self, pairs: Path) -> Path:
        """The evaluation on a set of pairs with images of its own: ``evaluation-lfw.json`` for ``lfw.bin``."""
        return self.path / f"evaluation-{pairs.stem}.json"

    def set_aside(self) -> Path | None:
        """Where the earlier run in this folder was moved, ``path-1`` or the next free number; None if there was none.

        Two runs in one folder would mix their curves, and an evaluation could read the other's last checkpoint.
        """
        if not any(file.exists() for file in (self.config, self.metrics, self.checkpoints)):
            return None
        numbered = (self.path.with_name(f"{self.path.name}-{number}") for number in itertools.count(1))
        return self.path.rename(next(path for path in numbered if not path.exists()))
