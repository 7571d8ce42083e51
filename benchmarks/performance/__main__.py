"""Measure the whole table of the classifier's performance, draw it, and go on where it was stopped.

    python -m benchmarks.performance            # on the CPU: what `make bench` does
    python -m benchmarks.performance --device cuda
    python -m benchmarks.performance --list     # the cases, their command lines, and which are done
    python -m benchmarks.performance --write    # the tables and the pictures again, from what is there

`performance/cpu.json` and `performance/cuda.json` are the table. A finished case is kept as
`docs/performance/MACHINE/NAME.json` and not measured again; the tables of all machines go between the markers of
`docs/performance.md`. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import parser
from benchmarks.classifier.case import DEVICES, Case
from benchmarks.classifier.ceilings import needed_bytes
from benchmarks.classifier.measure import check_machine, measured
from benchmarks.classifier.records import Record, read_records, summary
from benchmarks.documents import DOCS, write_part
from benchmarks.machine import this_machine
from benchmarks.memory import available_bytes
from benchmarks.performance.cases import cases
from benchmarks.performance.plots import drawn
from benchmarks.performance.tables import machine_part
from benchmarks.results import print_plan, read_json, sweep, unfinished

PART = "performance"
NO_RESULTS = "No results yet."


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is not there yet. 0: done, as far as it fits; 1: a case failed; 2: it cannot be; 130: stopped."""
    arguments = _parser().parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("performance: this machine has no CUDA device", file=sys.stderr)
        return 2
    folder = arguments.docs / PART / this_machine(arguments.device).name
    try:
        chosen = _chosen(cases(arguments.device), arguments.only)
        names = unfinished({name: asdict(case) for name, case in chosen.items()}, folder, kept_settings)
        waiting = {name: chosen[name] for name in names}
        if arguments.list:
            print_plan({name: f"{case.steps} steps  {case.command()}" for name, case in chosen.items()}, waiting)
            return 0
        code = 0 if arguments.write else sweep(waiting, folder, recorded)
        write_document(arguments.docs)
    except (OSError, ValueError) as error:
        print(f"performance: {error}", file=sys.stderr)
        return 2
    return code


def kept_settings(path: Path) -> dict[str, Any]:
    """The settings of the record at `path`."""
    return asdict(read_json(path, Record).case)


def recorded(case: Case) -> tuple[dict[str, Any], str]:
    """The record of a case as JSON holds it, and for people. ValueError for one that is too large for the machine."""
    check_machine(case)
    check_memory(case)
    record = measured(case)
    return record.as_json(), summary(record)


def check_memory(case: Case) -> None:
    """ValueError where the case may need more than is free: a guess, so that no process need be killed for it."""
    free_bytes = available_bytes(torch.device(case.device))
    if needed_bytes(case) > free_bytes:
        raise ValueError(f"it may need {needed_bytes(case) / 1e9:.1f} GB, and {free_bytes / 1e9:.1f} are free")


def write_document(docs: Path) -> None:
    """Draw the pictures of every machine that has records, and write its tables into `docs/performance.md`."""
    parts = [_machine_part(folder, docs) for folder in sorted((docs / PART).glob("*/")) if any(folder.glob("*.json"))]
    write_part(docs / "performance.md", PART, "\n\n".join(parts) or NO_RESULTS)


def _machine_part(folder: Path, docs: Path) -> str:
    """The part of one machine: its records as the table of cases has them, those it no longer has at the end."""
    records = read_records(folder)
    device = next(iter(records.values())).case.device
    place = {name: number for each in DEVICES for number, name in enumerate(cases(each))}
    records = {name: records[name] for name in sorted(records, key=lambda name: (place.get(name, len(place)), name))}
    return machine_part(records, [path.relative_to(docs).as_posix() for path in drawn(records, folder, device)])


def _chosen(planned: Mapping[str, Case], only: Sequence[str] | None) -> dict[str, Case]:
    if unknown := sorted(set(only or ()) - planned.keys()):
        raise ValueError(f"there is no case {', '.join(unknown)}; --list names them")
    return {name: case for name, case in planned.items() if only is None or name in only}


def _parser() -> argparse.ArgumentParser:
    arguments = parser("performance", __doc__)
    arguments.add_argument("--device", choices=DEVICES, default="cpu", help="where (default: %(default)s)")
    arguments.add_argument("--only", nargs="+", metavar="NAME", help="these cases only")
    arguments.add_argument("--list", action="store_true", help="tell what is planned and what is there")
    arguments.add_argument("--write", action="store_true", help="write the tables and the pictures; measure nothing")
    arguments.add_argument("--docs", type=Path, default=DOCS, help="holds performance.md and performance/")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
