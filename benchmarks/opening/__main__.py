"""How long a set of millions of images takes to open, in every form, and how much memory of the process it takes.

    python -m benchmarks.opening --folder /dev/shm                         # 4,000,000 images in each form
    python -m benchmarks.opening --folder /dev/shm --json OUT --document docs/data.md

The sets are made on the spot, of images of a few bytes: opening looks at none. Each opening is timed in a process of
its own, in which everything but pyarrow is imported already; the files are in the page cache. The first opening of a
form that keeps an index beside its files is set apart; of the later ones the least counts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from benchmarks import probes
from benchmarks.arguments import parser
from benchmarks.documents import publish, table
from benchmarks.machine import this_machine
from benchmarks.opening.sets import FORMS

PART = "opening"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where asked to."""
    chosen = _parser().parse_args(argv)
    result = {
        "machine": this_machine("cpu").description,
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "images": chosen.images,
        "turns": chosen.turns,
        "forms": measured(chosen),
    }
    publish(result, PART, document_part(result), kept=chosen.json, document=chosen.document)
    return 0


def measured(chosen: argparse.Namespace) -> dict[str, list[probes.Figures]]:
    """The openings of every form; each set is removed before the next is made."""
    forms = {}
    for name in chosen.only or FORMS:
        folder = Path(mkdtemp(prefix="opening-", dir=chosen.folder))
        try:
            print(f"{name}: making {chosen.images:,} images", flush=True)
            forms[name] = openings(FORMS[name](folder, chosen.images), chosen.images, times=1 + chosen.turns)
        finally:
            shutil.rmtree(folder)
        print("  ".join(f"{each['seconds']:.2f} s" for each in forms[name]), flush=True)
    return forms


def openings(path: Path, images: int, times: int) -> list[probes.Figures]:
    """The openings of the set at `path`, one after the other, each by a process of its own."""
    found = [probes.probed(probes.opening, path) for _ in range(times)]
    if found[0]["images"] != images:
        raise ValueError(f"{path} has {found[0]['images']} images: expected {images}")
    return found


def document_part(result: dict[str, Any]) -> str:
    """The table and the machine, in Markdown."""
    rows = []
    for name, (first, *later) in result["forms"].items():
        least = min(later, key=lambda each: each["seconds"])
        peak_bytes = max(each["peak_bytes"] for each in later) / result["images"]
        figures = (first["seconds"], least["seconds"], least["cpu_seconds"])
        rows.append([name, *(f"{figure:.2f}" for figure in figures), f"{peak_bytes:.0f}"])
    columns = ["form", "first opening, s", "later ones, s", "of CPU, s", "peak, bytes an image"]
    return (
        f"{table(columns, rows)}\n\n"
        f"{result['images']:,} images; the least of {result['turns']} later openings. {result['machine']}, load "
        f"{result['load']:.1f}. {result['date']}."
    )


def _parser() -> argparse.ArgumentParser:
    arguments = parser("opening", __doc__)
    arguments.add_argument("--images", type=int, default=4_000_000, help="of each set (default: %(default)s)")
    arguments.add_argument("--turns", type=int, default=3, help="openings after the first (default: %(default)s)")
    arguments.add_argument("--folder", type=Path, help="where the sets are made, up to 0.5 GB (default: temporary)")
    arguments.add_argument("--only", nargs="+", choices=FORMS, help="these forms")
    arguments.add_argument("--json", type=Path, help="where the figures go, every opening's")
    arguments.add_argument("--document", type=Path, help="a Markdown file with the markers of this part")
    return arguments


if __name__ == "__main__":
    raise SystemExit(main())
