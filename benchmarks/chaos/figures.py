"""What failures cost, from the record of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chaos.faults import Event, Fault, FaultFile


@dataclass(frozen=True)
class Recovery:
    """What followed a failure.

    ``detected_seconds``: until the agent launched new ranks, so it had seen the failure and ended the others; None
    where the same ranks went on. ``resumed_seconds``: until a step was done again. ``steps_lost``: done twice.
    """

    fault: Fault
    detected_seconds: float | None
    resumed_seconds: float
    steps_lost: int


def recoveries(file: FaultFile) -> list[Recovery]:
    """One for each fault that happened, in their order. ValueError where nothing followed one."""
    events = file.events()
    happened = [event for event in events if event.kind == "fault"]
    return [_recovery(file.faults[int(fault.note)], fault, events) for fault in happened]


def _recovery(fault: Fault, happened: Event, events: Sequence[Event]) -> Recovery:
    after = [event for event in events if event.seconds > happened.seconds]
    launched = None if fault.action == "stop" else next((event for event in after if event.kind == "start"), None)
    attempt = launched.attempt if launched else happened.attempt
    marks = [each for each in after if (each.attempt, each.rank) == (attempt, 0) and each.kind in ("begin", "end")]
    if not marks or (launched is None and fault.action != "stop"):
        raise ValueError(f"nothing followed {fault}")
    before = events[: len(events) - len(after)]  # they lie in order
    done = max((event.step for event in before if event.kind == "begin"), default=0)
    goes_on_at = marks[0].step if launched and marks[0].kind == "begin" else done
    step_done = marks[min(1 if launched else 0, len(marks) - 1)]  # a step begins when the one before is done
    return Recovery(
        fault,
        launched.seconds - happened.seconds if launched else None,
        step_done.seconds - happened.seconds,
        max(done - goes_on_at, 0),
    )


def start_up_seconds(events: Sequence[Event]) -> float:
    """Of all groups of ranks together: from the launch of the first rank until the last is ready for its first step."""
    total = 0.0
    for attempt in dict.fromkeys(event.attempt for event in events):
        own = [event for event in events if event.attempt == attempt]
        first = {event.rank: event.seconds for event in reversed(own) if event.kind == "begin"}
        ready = max(first.values(), default=own[-1].seconds)
        total += ready - min(event.seconds for event in own if event.kind == "start")
    return total


def training_seconds(events: Sequence[Event]) -> float:
    """From the launch of the first rank to the end of the last, less all start-up."""
    return events[-1].seconds - events[0].seconds - start_up_seconds(events)
