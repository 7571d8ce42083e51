"""The file that says which failures a run meets, and the record beside it of what happened."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE_VARIABLE = "PARTIAL_FC_FAULTS"  # in the environment of a rank: where the file lies


@dataclass(frozen=True)
class Fault:
    """One failure: on a rank, the first time it comes to ``place`` in this step of training or a later one.

    ``step`` -1 is the start-up, before any step. ``seconds``: how long a stop or a full disk lasts; of the place
    "moment", how long after the beginning of the step it is.
    """

    rank: int
    step: int
    place: str
    action: str = "kill"
    seconds: float = 0.0


@dataclass(frozen=True)
class Event:
    """What a rank wrote down: ``start``, ``begin`` (of a step), ``place``, ``fault`` or ``end``.

    ``attempt`` names the group of ranks that were started together: their agent's process and its count of restarts.
    """

    kind: str
    seconds: float
    rank: int
    attempt: str
    step: int
    note: str = ""


@dataclass(frozen=True)
class FaultFile:
    """The faults of a run at ``path``. A fault happens once: the rank that is started again does not meet it anew."""

    path: Path
    faults: Sequence[Fault] = ()
    records: tuple[int, int] = (0, 0)  # from this step to that one, exclusive, every place is written down
    checkpoints: str = ""  # the folder of the run that they lie in

    @classmethod
    def read(cls, path: Path) -> FaultFile:
        """What the file says."""
        tree = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            path,
            [Fault(**each) for each in tree["faults"]],
            (tree["records"][0], tree["records"][1]),
            tree["checkpoints"],
        )

    def write(self) -> None:
        """Write the file, as :meth:`read` takes it."""
        tree = {**asdict(self), "path": str(self.path)}
        self.path.write_text(json.dumps(tree), encoding="utf-8")

    def take(self, number: int) -> bool:
        """Whether the fault is this process's to suffer: no one suffered it before."""
        try:
            os.close(os.open(f"{self.path}.{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def taken(self) -> set[int]:
        """The numbers of the faults that happened."""
        return {number for number in range(len(self.faults)) if Path(f"{self.path}.{number}").exists()}

    def note(self, event: Event) -> None:
        """Add a line to the record: one write, which no kill cuts and no other rank's line breaks."""
        with open(f"{self.path}.events", "ab", buffering=0) as file:
            file.write((json.dumps(asdict(event)) + "\n").encode())

    def events(self) -> list[Event]:
        """All that was written down, by time."""
        path = Path(f"{self.path}.events")
        lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
        return sorted((Event(**line) for line in lines), key=lambda event: event.seconds)


def now_seconds() -> float:
    """The time that events bear: one clock for all processes of a machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def launch_seconds() -> float:
    """When this process was started, by the clock of :func:`now_seconds`."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")
