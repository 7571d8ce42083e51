from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from partial_fc.reports.time_spent import TimeSpent, started_seconds


def test_an_account_adds_up_to_the_whole_time_through_a_restart() -> None:
    first = TimeSpent(100.0)
    first.spend("start", 110.0)
    first.spend("training", 150.0)
    saved = json.loads(json.dumps(first.record()))
    first.spend("training", 175.0)  # which is lost
    second = TimeSpent(200.0, saved)
    second.spend("start", 205.0)
    second.spend("training", 230.0)
    second.move(4.0, "training", "data")
    expected = {"start": 15.0, "training": 61.0, "data": 4.0, "restart": 50.0, "save": 0.0, "evaluation": 0.0}
    assert second.seconds == expected
    assert sum(second.seconds.values()) == 130.0
    assert second.goodput == 61 / 130


def test_a_clock_set_back_and_a_wait_longer_than_all_book_nothing_that_was_not() -> None:
    spent = TimeSpent(100.0)
    assert spent.goodput == 1.0
    spent.spend("training", 110.0)
    spent.spend("save", 90.0)
    spent.spend("save", 111.0)
    spent.move(50.0, "training", "data")
    assert (spent.seconds["save"], spent.seconds["data"], spent.seconds["training"]) == (1.0, 10.0, 0.0)


@pytest.mark.parametrize("record", [{}, {"seconds": 3, "until_seconds": 0}, {"seconds": {}}])
def test_what_is_no_record_is_refused(record: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected seconds by cause and until_seconds"):
        TimeSpent(0.0, record)


def test_a_process_knows_when_it_began() -> None:
    before = time.time()
    code = "import time; time.sleep(0.5); from partial_fc.reports.time_spent import started_seconds as s; print(s())"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert before - 0.05 <= float(said) <= before + 0.4
    assert started_seconds() < before
