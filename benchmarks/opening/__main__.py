"""How long a set of millions of images takes to open, in every form, and how much memory of the process it takes.

    python -m benchmarks.opening --folder /dev/shm                         # 4,000,000 images in each form
    python -m benchmarks.opening --folder /dev/shm --json OUT --document docs/data.md

The sets are made on the spot, of images of a few bytes: opening looks at none. Each opening is timed in a process of
its own, in which everything is imported already; the files are in the page cache. The first opening of a form that
keeps an index beside its files is set apart; of the later ones the least counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from benchmarks.documents import publish, table
from benchmarks.machine import this_machine
from benchmarks.opening.sets import FORMS
from data_pipeline.formats.by_path import open_source

PART = "opening"
KIBIBYTE = 1 << 10


@dataclass(frozen=True)
class Opening:
    """One opening of a set: by the clock, of all cores, and the peak of the process above what it took before."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def opening(path: Path, images: int) -> Opening:
    """The opening of the set at `path`, by this process."""
    held_bytes = _memory_bytes("VmRSS")
    began, began_cpu = time.perf_counter(), time.process_time()
    source = open_source(path)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    if len(source) != images:
        raise ValueError(f"{path} has {len(source)} images: expected {images}")
    return Opening(seconds, cpu_seconds, _memory_bytes("VmHWM") - held_bytes)


def _memory_bytes(field: str) -> int:
    """What Linux says of this process; a peak of getrusage is inherited from the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(KIBIBYTE * int(line.split()[1]) for line in lines if line.startswith(field))


def openings(path: Path, images: int, times: int) -> list[Opening]:
    """The openings of the set at `path`, one after the other, each by a process of its own."""
    command = [sys.executable, "-m", "benchmarks.opening", "--open", str(path), "--images", str(images)]
    said = [subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout for _ in range(times)]
    return [Opening(**json.loads(each)) for each in said]


def measured(chosen: argparse.Namespace) -> dict[str, Any]:
    """All figures, form after form; each set is removed before the next is made."""
    forms = {}
    for name in chosen.only or FORMS:
        folder = Path(mkdtemp(prefix="opening-", dir=chosen.folder))
        try:
            print(f"{name}: making {chosen.images:,} images", flush=True)
            path = FORMS[name](folder, chosen.images)
            forms[name] = [asdict(each) for each in openings(path, chosen.images, 1 + chosen.turns)]
        finally:
            shutil.rmtree(folder)
        print("  ".join(f"{each['seconds']:.2f} s" for each in forms[name]), flush=True)
    return {
        "machine": this_machine("cpu").description,
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "images": chosen.images,
        "turns": chosen.turns,
        "forms": forms,
    }


def document_part(result: dict[str, Any]) -> str:
    """The table and the machine, in Markdown."""
    rows = []
    for name, (first, *later) in result["forms"].items():
        least = min(later, key=lambda each: each["seconds"])
        peak_bytes = max(each["peak_bytes"] for each in later) / result["images"]
        figures = (first["seconds"], least["seconds"], least["cpu_seconds"])
        rows.append([name, *(f"{figure:.2f}" for figure in figures), f"{peak_bytes:.0f}"])
    columns = ["form", "first opening, s", "later ones, s", "of CPU, s", "peak, bytes an image"]
    return "\n".join(
        [
            table(columns, rows),
            "",
            f"{result['images']:,} images; the least of {result['turns']} later openings. {result['machine']}, load "
            f"{result['load']:.1f}. {result['date']}.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where asked to."""
    chosen = _parser().parse_args(argv)
    if chosen.open is not None:
        print(json.dumps(asdict(opening(chosen.open, chosen.images))))
        return 0
    result = measured(chosen)
    publish(result, PART, document_part(result), kept=chosen.json, document=chosen.document)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.opening", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=4_000_000, help="of each set (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="openings after the first (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the sets are made, up to 0.5 GB (default: temporary)")
    parser.add_argument("--only", nargs="+", choices=FORMS, help="these forms")
    parser.add_argument("--json", type=Path, help="where the figures go, every opening's")
    parser.add_argument(
        "--document", type=Path, help="a Markdown file with the markers <!-- opening --> and <!-- /opening -->"
    )
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
