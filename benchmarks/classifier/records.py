"""What is kept of one benchmark of the classifier."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.classifier.case import OURS, Case
from benchmarks.classifier.ceilings import Ceilings, Floors
from benchmarks.machine import Machine
from benchmarks.results import read_json


@dataclass(frozen=True)
class Footprint:
    """What one rank took, in bytes. The peak is above what its process held before the classifier was made."""

    peak_bytes: int
    weight_bytes: int
    state_bytes: int


@dataclass(frozen=True)
class Measurement:
    """One contender: the time of every measured step (its slowest rank's), and what each rank took."""

    contender: str
    seconds: list[float]
    last_loss: float
    ranks: list[Footprint]

    @property
    def short_name(self) -> str:
        """The contender's name, without the path of a foreign one."""
        return self.contender.rpartition(":")[2]

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.seconds)

    @property
    def peak_bytes(self) -> int:
        """The peak of the steps above the start, of the rank that took most."""
        return max(rank.peak_bytes for rank in self.ranks)

    @property
    def held_bytes(self) -> int:
        """Weights and optimizer state, of the rank that has most."""
        return max(rank.weight_bytes + rank.state_bytes for rank in self.ranks)

    @property
    def peak_over_held(self) -> float:
        """The peak of the rank that took most beyond what it must hold, as a multiple of that."""
        return max(rank.peak_bytes / (rank.weight_bytes + rank.state_bytes) for rank in self.ranks)

    def derived(self, case: Case) -> dict[str, Any]:
        """What a reader of the file wants to see of it."""
        return {
            "contender": self.short_name,
            "median_seconds": self.median_seconds,
            "least_and_most_seconds": [min(self.seconds), max(self.seconds)],
            "images_per_second": case.batch / self.median_seconds,
            "peak_bytes": self.peak_bytes,
            "peak_over_weights_and_state": self.peak_over_held,
        }


@dataclass(frozen=True)
class Record:
    """One benchmark that came to an end. `against_failure`: why the other contender has no figures, if it has none."""

    case: Case
    ours: Measurement
    against: Measurement | None
    against_failure: str | None
    rates: Ceilings
    floors: Floors
    machine: Machine
    date: str

    @property
    def _another_kind(self) -> Measurement | None:
        is_the_same = self.case.against == OURS and not self.case.compares_losses
        return None if is_the_same else self.against

    @property
    def times_faster(self) -> float | None:
        """The median step of another kind of classifier, or of ours with another loss, over ours."""
        other = self._another_kind
        return None if other is None else other.median_seconds / self.ours.median_seconds

    @property
    def share_of_memory(self) -> float | None:
        """Our peak over that of another kind of classifier."""
        other = self._another_kind
        return None if other is None else self.ours.peak_bytes / other.peak_bytes

    @property
    def times_per_class(self) -> float | None:
        """Our time per class over that of ours over another number of classes, in the same run."""
        if self.against is None or self.case.against != OURS or self.case.compares_losses:
            return None
        return self.seconds_per_class / (self.against.median_seconds / self.case.case_against.num_classes)

    @property
    def time_over_floor(self) -> float:
        """Our median step over the least that this machine could take."""
        return self.ours.median_seconds / self.floors.seconds

    @property
    def seconds_per_class(self) -> float:
        """Our median step over the number of classes."""
        return self.ours.median_seconds / self.case.num_classes

    def as_json(self) -> dict[str, Any]:
        """The record, after what a reader of the file wants to see first: that is made from it, and not read back."""
        ratios = ("times_faster", "share_of_memory", "times_per_class", "time_over_floor")
        derived = {
            "command": self.case.command(),
            "ours": self.ours.derived(self.case),
            "against": None if self.against is None else self.against.derived(self.case),
            **{ratio: getattr(self, ratio) for ratio in ratios},
        }
        return {"derived": derived, **asdict(self)}


def read_records(folder: Path) -> dict[str, Record]:
    """Every record in `folder` by the name of its file. ValueError for a file that is none."""
    return {path.stem: read_json(path, Record) for path in sorted(folder.glob("*.json"))}


def summary(record: Record) -> str:
    """What the file shows first, a line for each that there is."""
    shown = {**record.as_json()["derived"], "against_failure": record.against_failure}
    return "\n".join(f"{name:16} {_line(value)}" for name, value in shown.items() if value is not None)


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_line(each)}" for name, each in value.items())
    if isinstance(value, list):
        return " to ".join(map(_line, value))
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
