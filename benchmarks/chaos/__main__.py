"""Kill a run a hundred times, compare its end with that of a run that was never disturbed, and write what it cost.

    python -m benchmarks.chaos               # 100 failures: what `make chaos` does
    python -m benchmarks.chaos --kills 10    # fewer of those at random moments; every place has its turn all the same

The table goes between the markers of `docs/chaos.md`, the figures into `docs/chaos.json`. Exit code 1 where the end is
not bitwise the same, or a failure had no end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.arguments import parser
from benchmarks.chaos.cost import Cost, measured_cost
from benchmarks.chaos.disk import small_disk
from benchmarks.chaos.figures import Recovery, recoveries
from benchmarks.chaos.plan import every_place, planned
from benchmarks.chaos.runs import Run, differing_files, settings, synthetic_set
from benchmarks.chaos.tables import chaos_part
from benchmarks.documents import DOCS, publish
from benchmarks.machine import this_machine

SAVE_EVERY, STEPS_BETWEEN = 8, 16  # two saves between failures: the second one of a process has two collectives more
RECORDED = 39, 47  # the fifth save and what its thread does after it
DISK_BYTES = 256 << 20
LIMIT_SECONDS = 20.0  # of the watchdogs, for a step and for a save


def main(argv: Sequence[str] | None = None) -> int:
    """Run all of it. 0: the end was the same; 1: it was not, or a run did not end."""
    arguments = _parser().parse_args(argv)
    with TemporaryDirectory() as made:
        folder = arguments.folder or Path(made)
        data = synthetic_set(folder / "set", identities=24, images=8, side=24)
        recorded = Run(folder / "recorded", _settings(data, 48), records=RECORDED)
        _finish(recorded, 1)
        with small_disk(folder / "disturbed" / "run", DISK_BYTES) as may_fill:
            places = every_place(recorded.file.events())
            faults = planned(places, arguments.kills, STEPS_BETWEEN, may_fill=may_fill, seed=arguments.seed)
            steps = faults[-1].step + 1 + 2 * STEPS_BETWEEN
            undisturbed = Run(folder / "undisturbed", _settings(data, steps))
            disturbed = Run(folder / "disturbed", _settings(data, steps), faults, max_restarts=len(faults))
            _finish(undisturbed, 1)
            _finish(disturbed, len(faults))
            differing = differing_files(disturbed.checkpoints, undisturbed.checkpoints)
            missed = set(range(len(faults))) - disturbed.file.taken()
            followed = recoveries(disturbed.file)
        cost = measured_cost(folder / "cost", arguments.seed)
    result = _result(followed, differing, len(places), steps, cost)
    body = chaos_part(followed, differing, len(places), steps, cost, this_machine("cpu").description)
    publish(result, "chaos", body, kept=arguments.docs / "chaos.json", document=arguments.docs / "chaos.md")
    for number in missed:
        print(f"chaos: {faults[number]} never happened", file=sys.stderr)
    return int(bool(differing or missed))


def _settings(data: Path, steps: int) -> dict[str, Any]:
    watchdog = {"step_seconds": LIMIT_SECONDS, "save_seconds": LIMIT_SECONDS}
    return {**settings(data, steps, SAVE_EVERY), "watchdog": watchdog}


def _finish(run: Run, launches: int) -> None:
    """RuntimeError with the last lines that were said where the run does not end."""
    codes = run.trained(launches)
    if 0 not in codes:
        raise RuntimeError(f"{run.folder} ended with {codes}: {run.said()[-2000:]}")


def _result(followed: list[Recovery], differing: list[str], places: int, steps: int, cost: Cost) -> dict[str, Any]:
    return {
        "machine": asdict(this_machine("cpu")),
        "steps": steps,
        "places": places,
        "differing_files": differing,
        "cost": asdict(cost),
        "recoveries": [asdict(each) for each in followed],
    }


def _parser() -> argparse.ArgumentParser:
    arguments = parser("chaos", __doc__)
    arguments.add_argument("--kills", type=int, default=100, help="at least so many failures (default: %(default)s)")
    arguments.add_argument("--seed", type=int, default=0, help="of the moments and the order (default: %(default)s)")
    arguments.add_argument("--folder", type=Path, help="keep the runs here (default: a folder that is removed)")
    arguments.add_argument("--docs", type=Path, default=DOCS, help="holds chaos.md and chaos.json")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
