"""Which failures a run meets: every place that was seen, then other kinds of failures, then random moments."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.chaos.faults import Event, Fault
from benchmarks.chaos.injector import MOMENT

OTHERS = {  # by action: how many, and how many seconds each lasts
    "kill all": (6, 0.0),
    "kill agent": (3, 0.0),
    "terminate": (2, 0.0),
    "terminate agent": (3, 0.0),
    "stop": (2, 3.0),
    "stop for good": (2, 0.0),
    "tear": (2, 0.0),
    "fill disk": (2, 4.0),
}


def every_place(events: Iterable[Event]) -> list[tuple[int, str]]:
    """Rank and place of all that a run wrote down, each once, in the order in which it came to them."""
    seen = dict.fromkeys((each.rank, each.note) for each in events if each.kind == "place" and each.note != MOMENT)
    return list(seen)


def planned(
    places: Sequence[tuple[int, str]], number: int, every_steps: int, *, may_fill: bool, seed: int
) -> list[Fault]:
    """At least ``number`` faults, one every so many steps: a kill at each of ``places``, and what else there is.

    Their order is random, by ``seed``: kills at random moments stand between kills inside a save.
    """
    draw = random.Random(seed)
    kinds: list[tuple[int, str, str, float]] = [(rank, place, "kill", 0.0) for rank, place in places]
    for action, (count, seconds) in OTHERS.items():
        if action != "fill disk" or may_fill:
            kinds += [(draw.randrange(2), _somewhere(draw, places), action, seconds) for _ in range(count)]
    while len(kinds) < number:
        kinds.append((draw.randrange(2), MOMENT, "kill", round(draw.uniform(0.0, 0.1), 3)))
    draw.shuffle(kinds)
    return list(_at_steps(kinds, every_steps))


def _somewhere(draw: random.Random, places: Sequence[tuple[int, str]]) -> str:
    """A collective that both ranks come to."""
    return draw.choice([place for _, place in places if place.startswith("inside collective")])


def _at_steps(kinds: Iterable[tuple[int, str, str, float]], every_steps: int) -> Iterator[Fault]:
    """Each at a step that is saved, the third of them first: there is then a checkpoint to go on from or to damage."""
    for number, (rank, place, action, seconds) in enumerate(kinds, 3):
        yield Fault(rank, number * every_steps - 1, place, action, seconds)
