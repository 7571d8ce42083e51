"""What an image costs from the disk to a batch, ours against torch's DataLoader; and how long training waits for it.

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
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.data.contenders import Task, contenders
from benchmarks.data.turns import Cost, costs
from benchmarks.data.wait import Wait, measured_wait
from benchmarks.documents import publish, table
from benchmarks.machine import this_machine
from data_pipeline.formats.by_path import open_source
from data_pipeline.packing.synthetic import pack_synthetic
from launch.processes import keep_freed_memory

PART = "data"
OURS = "ImageLoader"
IMAGES_OF_EACH = 10  # of a synthetic person
FIRST_MEASURED_STEP = 3  # of the training; those before it find everything cold


def summary(found: dict[str, Cost], images: int, wait: Wait | None, facts: dict[str, Any]) -> dict[str, Any]:
    """All of it as JSON holds it; the wait's share counts where the loader alone is faster than the step."""
    ours = found[OURS].cpu_microseconds(images)
    loaders = {
        name: {
            "cpu_microseconds_per_image": cost.cpu_microseconds(images),
            "images_per_second": cost.images_per_second(images),
            "times_our_cpu": cost.cpu_microseconds(images) / ours,
            **asdict(cost),
        }
        for name, cost in found.items()
    }
    if wait is None:
        return {**facts, "loaders": loaders}
    alone_seconds = wait.batch / found[OURS].images_per_second(images)
    return {**facts, "loaders": loaders, "training": {**asdict(wait), "loader_alone_seconds": alone_seconds}}


def document_part(result: dict[str, Any]) -> str:
    """The table, the wait and the machine, in Markdown."""
    rows = [
        [
            name,
            f"{found['cpu_microseconds_per_image']:.0f}",
            f"{found['times_our_cpu']:.2f}",
            f"{found['images_per_second']:,.0f}",
        ]
        for name, found in result["loaders"].items()
    ]
    lines = [table(["loader", "CPU µs an image", "times ours", "images a second"], rows), ""]
    if training := result.get("training"):
        lines += [
            f"Training ({training['name']}, batches of {training['batch']}): {1e3 * training['step_seconds']:.0f} ms a "
            f"step, of which {1e3 * training['wait_seconds']:.2f} ms, "
            f"{100 * training['wait_seconds'] / training['step_seconds']:.2f} %, waiting for data; the loader alone "
            f"takes {1e3 * training['loader_alone_seconds']:.0f} ms a batch.",
            "",
        ]
    return "\n".join(
        [
            *lines,
            f"{result['images']:,} JPEG images, {result['bytes_per_image']:,.0f} bytes on average, to {result['side']} "
            f"pixels; {result['turns']} turns of {result['long']} batches of {result['batch']} less "
            f"{result['short']}; {result['workers']} threads or workers. {result['machine']}, load "
            f"{result['load_before']:.1f}. {result['date']}.",
        ]
    )


def measured(chosen: argparse.Namespace, path: Path) -> dict[str, Any]:
    """The whole measurement of the set in `path`."""
    source = open_source(path)
    task = Task(source, chosen.side, chosen.batch, chosen.workers)
    sizes = [source.read(sample).size for sample in range(0, len(source), max(len(source) // 1000, 1))]
    facts = {
        "machine": this_machine("cpu").description,
        "date": time.strftime("%Y-%m-%d"),
        "load_before": os.getloadavg()[0],
        "images": len(source),
        "bytes_per_image": sum(sizes) / len(sizes),
        **{name: getattr(chosen, name) for name in ("side", "batch", "workers", "turns", "short", "long")},
    }
    found = costs(task, chosen.only or contenders(), turns=chosen.turns, short=chosen.short, long=chosen.long)
    last = FIRST_MEASURED_STEP + chosen.training_steps
    wait = measured_wait(task, range(FIRST_MEASURED_STEP, last)) if chosen.training_steps else None
    return summary(found, (chosen.long - chosen.short) * chosen.batch, wait, facts)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where asked to."""
    chosen = _parser().parse_args(argv)
    if not 0 < chosen.short < chosen.long or chosen.turns < 1:
        raise SystemExit("benchmarks.data: expected 0 < --short < --long and --turns of 1 or more")
    if chosen.only and OURS not in chosen.only:
        raise SystemExit(f"benchmarks.data: expected {OURS} among --only, as the others are compared with it")
    with TemporaryDirectory() as folder:
        if chosen.data is None:
            print(f"drawing {chosen.images:,} faces of {chosen.side} pixels", flush=True)
            people = max(chosen.images // IMAGES_OF_EACH, 1)
            pack_synthetic(Path(folder) / "set", identities=people, images=IMAGES_OF_EACH, size=chosen.side, workers=1)
        result = measured(chosen, chosen.data or Path(folder) / "set")
    publish(result, PART, document_part(result), kept=chosen.json, document=chosen.document)
    if "DataLoader + OpenCV" not in contenders():
        print("OpenCV is not installed and was left out: pip install opencv-python-headless")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a set of images in any form; left out, one is drawn")
    parser.add_argument("--images", type=int, default=4000, help="of the set that is drawn (default: %(default)s)")
    parser.add_argument("--side", type=int, default=112, help="in pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="images (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="threads, or processes (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--short", type=int, default=4, help="batches of the short run (default: %(default)s)")
    parser.add_argument("--long", type=int, default=44, help="batches of the long run (default: %(default)s)")
    parser.add_argument("--training-steps", type=int, default=12, help="0: do not train (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=contenders(), help="these loaders; ours must be among them")
    parser.add_argument("--json", type=Path, help="where the figures go, every turn's included")
    parser.add_argument(
        "--document", type=Path, help="a Markdown file with the markers <!-- data --> and <!-- /data -->"
    )
    return parser


if __name__ == "__main__":
    torch.set_num_threads(min(torch.get_num_threads(), os.cpu_count() or 1))
    keep_freed_memory()
    raise SystemExit(main())
