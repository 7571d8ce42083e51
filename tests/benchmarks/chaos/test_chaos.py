"""Which failures a run meets: every recorded place once, other kinds, and random moments to make up the number."""

from __future__ import annotations

from collections import Counter

from benchmarks.chaos.actions import ACTIONS
from benchmarks.chaos.cost import Cost
from benchmarks.chaos.faults import Event, Fault
from benchmarks.chaos.figures import Recovery
from benchmarks.chaos.injector import MOMENT
from benchmarks.chaos.plan import OTHERS, every_place, planned
from benchmarks.chaos.tables import KINDS, chaos_part

PLACES = [(rank, place) for rank in (0, 1) for place in ("inside collective 0", "inside collective 1", "before latest")]
EVENTS = [
    Event("begin", 1.0, 0, "a", 39),
    *(Event("place", 2.0, rank, "a", 39, place) for rank, place in [(0, MOMENT), *PLACES, PLACES[0]]),
]


def test_every_place_that_was_recorded_has_its_kill_and_each_failure_its_step() -> None:
    assert every_place(EVENTS) == PLACES
    faults = planned(PLACES, 60, 16, may_fill=True, seed=1)
    assert len(faults) == 60
    assert {(fault.rank, fault.place) for fault in faults if fault.action == "kill"} >= set(PLACES)
    assert [fault.step for fault in faults] == [16 * number - 1 for number in range(3, 63)]
    counts = Counter(fault.action for fault in faults)
    assert {action: counts[action] for action in OTHERS} == {action: count for action, (count, _) in OTHERS.items()}
    assert planned(PLACES, 60, 16, may_fill=True, seed=1) == faults != planned(PLACES, 60, 16, may_fill=True, seed=2)
    assert all(fault.action != "fill disk" for fault in planned(PLACES, 60, 16, may_fill=False, seed=1))


def test_places_and_kinds_of_failures_are_never_left_out_for_the_number() -> None:
    everything = len(PLACES) + sum(count for count, _ in OTHERS.values())
    assert len(planned(PLACES, 1, 16, may_fill=True, seed=1)) == everything


def test_every_kind_of_failure_has_its_row() -> None:
    assert KINDS.keys() == ACTIONS.keys()
    followed = [Recovery(Fault(0, 1, "before latest", action), 0.5, 8.0, 3) for action in ACTIONS]
    followed += [Recovery(Fault(0, 1, place), 1.5, 9.0, 5) for place in (MOMENT, "inside collective 1")]
    followed += [Recovery(Fault(0, 1, MOMENT, "stop", 3.0), None, 4.0, 0)]
    part = chaos_part(followed, [], 6, 1000, Cost(60.0, 66.0, 40.0, 4, 400, 10), "A machine")
    assert "**is bitwise that of** a run" in part
    assert "1.10 minutes, and 1.00 without: **1.100 times as long** (aim: 1.10), beyond the 8.0 s" in part
    assert "| SIGKILL of a rank, at a random moment | 1 | 1.50 | 1.50 | 9.0 | 9.0 | 5 | 5 |" in part
    assert part.count("\n| ") == len(ACTIONS) + 2 + 1 + 2
    assert "**differs (backbone.pt) from that of**" in chaos_part(
        followed, ["backbone.pt"], 6, 1000, Cost(60.0, 66.0, 40.0, 4, 400, 10), "A machine"
    )
