"""What an image costs from the disk to a batch, ours against torch's DataLoader.

    python -m benchmarks.data                                     # 4000 synthetic faces, made on the spot
    python -m benchmarks.data --data PATH --side 112              # your set, in any form
    python -m benchmarks.data --json OUT --document docs/data.md

Each turn runs every contender over a few batches and over many, one contender after another, so that a busy machine
meets all alike. The difference of the two runs is what further images cost: starting, and what is read ahead, is in
both. CPU time is that of the contender's process and of its ended workers (getrusage); it is the figure that other work
on the machine disturbs least. Each run's least of all turns counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.arguments import parser
from benchmarks.data.contenders import OURS, Task
from benchmarks.data.costs import Cost, costs
from benchmarks.documents import publish, table
from benchmarks.machine import this_machine
from data_pipeline.formats.by_path import source_at
from data_pipeline.packing.synthetic import pack_synthetic

PART = "data"
IMAGES_OF_EACH = 10  # of a synthetic person


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where asked to."""
    chosen = _parser().parse_args(argv)
    if not 0 < chosen.short < chosen.long or chosen.turns < 1:
        raise SystemExit("benchmarks.data: expected 0 < --short < --long and --turns of 1 or more")
    with TemporaryDirectory() as folder:
        path = chosen.data or Path(folder) / "set"
        if chosen.data is None:
            print(f"drawing {chosen.images:,} faces of {chosen.side} pixels", flush=True)
            people = max(chosen.images // IMAGES_OF_EACH, 1)
            pack_synthetic(path, identities=people, images=IMAGES_OF_EACH, size=chosen.side, workers=1)
        result = measured(chosen, path)
    publish(result, PART, document_part(result), kept=chosen.json, document=chosen.document)
    return 0


def measured(chosen: argparse.Namespace, path: Path) -> dict[str, Any]:
    """The whole measurement of the set in `path`, as JSON holds it."""
    source = source_at(path)
    task = Task(source, chosen.side, chosen.batch, chosen.workers)
    sizes = [source.read(sample).size for sample in range(0, len(source), max(len(source) // 1000, 1))]
    result = {
        "machine": this_machine("cpu").description,
        "date": time.strftime("%Y-%m-%d"),
        "load_before": os.getloadavg()[0],
        "images": len(source),
        "bytes_per_image": statistics.mean(sizes),
        **{name: getattr(chosen, name) for name in ("side", "batch", "workers", "turns", "short", "long")},
    }
    found = costs(task, turns=chosen.turns, short=chosen.short, long=chosen.long)
    result["loaders"] = loaders(found, images=(chosen.long - chosen.short) * chosen.batch)
    return result


def loaders(found: dict[str, Cost], images: int) -> dict[str, dict[str, Any]]:
    """The figures of each loader; `images` is how many more the long runs have."""
    ours = found[OURS].cpu_microseconds(images)
    return {
        name: {
            "cpu_microseconds_per_image": cost.cpu_microseconds(images),
            "images_per_second": cost.images_per_second(images),
            "times_our_cpu": cost.cpu_microseconds(images) / ours,
            **asdict(cost),
        }
        for name, cost in found.items()
    }


def document_part(result: dict[str, Any]) -> str:
    """The table and the machine, in Markdown."""
    measures = {"cpu_microseconds_per_image": ".0f", "times_our_cpu": ".2f", "images_per_second": ",.0f"}
    rows = [
        [name, *(f"{found[measure]:{form}}" for measure, form in measures.items())]
        for name, found in result["loaders"].items()
    ]
    return (
        f"{table(['loader', 'CPU µs an image', 'times ours', 'images a second'], rows)}\n\n"
        f"{result['images']:,} JPEG images, {result['bytes_per_image']:,.0f} bytes on average, to {result['side']} "
        f"pixels; {result['turns']} turns of {result['long']} batches of {result['batch']} less {result['short']}; "
        f"{result['workers']} threads or workers. {result['machine']}, load {result['load_before']:.1f}. "
        f"{result['date']}."
    )


def _parser() -> argparse.ArgumentParser:
    arguments = parser("data", __doc__)
    arguments.add_argument("--data", type=Path, help="a set of images in any form; left out, one is drawn")
    arguments.add_argument("--images", type=int, default=4000, help="of the set that is drawn (default: %(default)s)")
    arguments.add_argument("--side", type=int, default=112, help="in pixels (default: %(default)s)")
    arguments.add_argument("--batch", type=int, default=64, help="images (default: %(default)s)")
    arguments.add_argument("--workers", type=int, default=2, help="threads, or processes (default: %(default)s)")
    arguments.add_argument("--turns", type=int, default=5, help="(default: %(default)s)")
    arguments.add_argument("--short", type=int, default=4, help="batches of the short run (default: %(default)s)")
    arguments.add_argument("--long", type=int, default=44, help="batches of the long run (default: %(default)s)")
    arguments.add_argument("--json", type=Path, help="where the figures go, every turn's included")
    arguments.add_argument("--document", type=Path, help="a Markdown file with the markers of this part")
    return arguments


if __name__ == "__main__":
    raise SystemExit(main())
