"""What `make chaos` found, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.chaos.cost import Cost
from benchmarks.chaos.figures import Recovery
from benchmarks.chaos.injector import MOMENT
from benchmarks.documents import NOTHING, table

KINDS = {  # by action: what a reader is told it is
    "kill": "SIGKILL of a rank",
    "kill all": "SIGKILL of all ranks, inside a collective",
    "kill agent": "SIGKILL of the agent, inside a collective",
    "terminate": "SIGTERM of a rank, inside a collective",
    "terminate agent": "SIGTERM of the agent, inside a collective",
    "stop": "SIGSTOP of a rank for 3 s, inside a collective",
    "stop for good": "SIGSTOP of a rank for good, inside a collective",
    "tear": "last checkpoint cut short, SIGKILL of a rank",
    "fill disk": "full disk for 4 s",
}
COLUMNS = (
    *("failure", "times", "detected after, s", "worst", "resumed after, s", "worst"),
    *("steps lost", "worst"),
)


def chaos_part(
    followed: Sequence[Recovery], differing: Sequence[str], places: int, steps: int, cost: Cost, machine: str
) -> str:
    """The table, whether the end was the same, and what failures cost."""
    kinds: dict[str, list[Recovery]] = {}
    for each in followed:
        kinds.setdefault(_kind(each), []).append(each)
    rows = [_row(kind, kinds[kind]) for kind in sorted(kinds)]
    rows.append(_row("all", followed))
    end = "is bitwise that of" if not differing else f"differs ({', '.join(differing)}) from that of"
    return "\n\n".join(
        [
            f"{machine}. {len(followed)} failures of a run of {steps:,} steps on 2 ranks, at each of the {places} "
            f"places of its ranks at least one. Its end, every tensor of its last checkpoint, **{end}** a run that was "
            "never disturbed.",
            table(COLUMNS, rows),
            f"A run of {cost.steps} steps, saved every {cost.save_every}, with {cost.failures} failures, one every "
            f"{cost.steps // cost.failures} steps: {cost.disturbed_seconds / 60:.2f} minutes, and "
            f"{cost.undisturbed_seconds / 60:.2f} without: **{cost.ratio:.3f} times as long** (aim: 1.10), beyond the "
            f"{cost.start_ups_seconds / (cost.failures + 1):.1f} s that each start of its processes took.",
        ]
    )


def _kind(recovery: Recovery) -> str:
    fault = recovery.fault
    if fault.action != "kill":
        return KINDS[fault.action]
    where = "at a random moment" if fault.place == MOMENT else "at a point of a save"
    return f"{KINDS['kill']}, {'inside a collective' if fault.place.startswith('inside') else where}"


def _row(kind: str, those: Sequence[Recovery]) -> list[str]:
    detected = [each.detected_seconds for each in those if each.detected_seconds is not None]
    resumed, lost = [each.resumed_seconds for each in those], [each.steps_lost for each in those]
    found = [f"{median(detected):.2f}", f"{max(detected):.2f}"] if detected else [NOTHING, NOTHING]
    resumed_after = [f"{median(resumed):.1f}", f"{max(resumed):.1f}"]
    return [kind, str(len(those)), *found, *resumed_after, f"{median(lost):g}", str(max(lost))]
