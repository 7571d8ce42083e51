"""What a failure cost, from the record of a run; a fault happens once."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos.faults import Event, Fault, FaultFile, launch_seconds, now_seconds
from benchmarks.chaos.figures import Recovery, recoveries, start_up_seconds, training_seconds
from benchmarks.chaos.injector import Injector

KILLED, STOPPED = Fault(1, 11, "inside collective 3"), Fault(0, 12, "moment", "stop", 2.0)
RECORD = [
    *(Event("start", seconds, rank, "a-0", -1) for rank, seconds in ((0, 100.0), (1, 100.5))),
    *(Event("begin", seconds, rank, "a-0", 10) for rank, seconds in ((0, 108.0), (1, 108.5))),
    *(Event("begin", seconds, rank, "a-0", 11) for rank, seconds in ((0, 109.0), (1, 109.0))),
    Event("fault", 109.5, 1, "a-0", 11, "0"),
    *(Event("start", 110.0, rank, "a-1", -1) for rank in (0, 1)),
    *(Event("begin", seconds, rank, "a-1", 8) for rank, seconds in ((0, 116.0), (1, 117.0))),
    *(Event("begin", 118.0 + step, 0, "a-1", 9 + step) for step in range(4)),
    Event("fault", 121.5, 0, "a-1", 12, "1"),
    Event("begin", 124.0, 0, "a-1", 13),
    *(Event("end", 125.0, rank, "a-1", 13) for rank in (0, 1)),
]


def file_with(folder: Path, *faults: Fault) -> FaultFile:
    file = FaultFile(folder / "faults.json", faults)
    file.write()
    return FaultFile.read(file.path)


def test_detection_resumption_and_loss_follow_from_the_record(tmp_path: Path) -> None:
    file = file_with(tmp_path, KILLED, STOPPED)
    for event in RECORD:
        file.note(event)
    assert file.events() == RECORD
    assert recoveries(file) == [Recovery(KILLED, 0.5, 8.5, 3), Recovery(STOPPED, None, 2.5, 0)]
    assert start_up_seconds(RECORD) == 8.5 + 7.0
    assert training_seconds(RECORD) == 25.0 - 15.5


def test_a_failure_that_nothing_follows_is_no_recovery(tmp_path: Path) -> None:
    file = file_with(tmp_path, KILLED)
    for event in RECORD[:7]:
        file.note(event)
    with pytest.raises(ValueError, match="nothing followed"):
        recoveries(file)


def test_a_fault_is_due_on_its_rank_at_its_place_from_its_step_on_and_once(tmp_path: Path) -> None:
    file = file_with(tmp_path, KILLED)
    first, other = Injector(file, rank=1), Injector(file, rank=0)
    for injector, step, place in ((first, 10, KILLED.place), (first, 11, "before latest"), (other, 11, KILLED.place)):
        injector.begin(step)
        assert injector.due(place) is None
    assert file.taken() == set()
    first.begin(12)
    assert first.due(KILLED.place) == KILLED
    assert first.due(KILLED.place) is None
    assert Injector(file, rank=1).due(KILLED.place) is None
    assert file.taken() == {0}


def test_the_launch_of_a_process_lies_before_now_on_the_same_clock() -> None:
    assert 0.0 < launch_seconds() < now_seconds() < launch_seconds() + 86_400
