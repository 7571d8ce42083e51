"""The one home of the names of a run's files. It imports no torch: to look at a run waits for nothing."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import NamedTuple


class Owner(NamedTuple):
    """The process that a run's lock names."""

    process: int
    host: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    @classmethod
    def this_process(cls) -> Owner:
        """The one that asks."""
        return cls(os.getpid(), socket.gethostname())

    @classmethod
    def of(cls, words: str) -> Owner | None:
        """The process that ``str`` named in ``words``; None where they name none."""
        named = re.fullmatch(r"process (\d+) on (\S+)", words)
        return cls(int(named[1]), named[2]) if named else None

    def is_gone(self) -> bool:
        """Whether it has ended, as far as this host can tell: of another host's it never is."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # it runs, and is another user's
        return False


class RunFiles:
    """What a run, or an evaluation of it, leaves in the folder ``path``; none of it need be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"  # the whole configuration, defaults included
        self.metrics = path / "metrics.jsonl"  # the course of training, a line per interval
        self.tensorboard = path / "tensorboard"  # event files, where the run is told to write them
        self.checkpoints = path / "checkpoints"  # a folder per saved step
        self.evaluation = path / "evaluation.json"
        self.evaluations = path / "evaluations.jsonl"  # a line of measures for each evaluation on the way
        self.owed = path / "owed_evaluation"  # the step whose evaluation was given up when the run was told to end
        self.report = path / "report.html"
        self.time_spent = path / "time_spent.json"  # what the run's time was spent on, from its first start to its end
        self.profile = path / "profile"  # what partial-fc profile recorded
        self.targets = path / "targets.json"  # while it trains: where Prometheus finds its ranks
        self.lock = path / ".lock"  # there while a run writes here

    def stacks_of(self, rank: int) -> Path:
        """What the threads of ``rank`` were doing when it hung, a paragraph each time: ``stacks/rank-00003.txt``."""
        return self.path / "stacks" / f"rank-{rank:05d}.txt"

    def evaluation_of(self, pairs: Path) -> Path:
        """The evaluation on a set of pairs with images of its own: ``evaluation-lfw.json`` for ``lfw.bin``."""
        return self.evaluation_called(pairs.stem)

    def evaluation_called(self, name: str) -> Path:
        """The evaluation by a protocol with files of its own: ``evaluation-ijbc.json``."""
        return self.path / f"evaluation-{name}.json"

    def holds_run(self) -> bool:
        """Whether there is an earlier run, or a part of one."""
        return any(file.exists() for file in (self.config, self.metrics, self.checkpoints))

    def is_written(self) -> bool:
        """Whether a process writes here, as far as its lock tells; the lock itself is left alone."""
        try:
            owner = Owner.of(self.lock.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        return owner is None or not owner.is_gone()
