"""What an image costs from the disk to a batch, ours against torch's DataLoader; and how long training waits for it.

    python -m benchmarks.data                                     # 4000 synthetic faces, made on the spot
    python -m benchmarks.data --data PATH --side 112              # your set, in any form
    python -m benchmarks.data --json OUT --document docs/data.md

Each turn runs every contender over a few batches and over many, one contender after another, so that a busy machine
meets all alike. The difference of the two runs is what further images cost: starting, and what is read ahead, is in
both. CPU time is that of the contender's process and of its ended workers (getrusage); it is the figure that other work
on the machine disturbs least. Each run's least of all turns counts. The training is `partial-fc train` itself.
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
from benchmarks.data.contenders import Task, contenders
from benchmarks.data.costs import Cost, costs
from benchmarks.documents import publish, table
from benchmarks.machine import this_machine
from benchmarks.trainer import train
from data_pipeline.formats.by_path import source_at
from data_pipeline.packing.synthetic import pack_synthetic

PART = "data"
OURS = "ImageLoader"
IMAGES_OF_EACH = 10  # of a synthetic person
FIRST_MEASURED_STEP = 3  # of the training; those before it find everything cold


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where asked to."""
    chosen = _parser().parse_args(argv)
    if not 0 < chosen.short < chosen.long or chosen.turns < 1:
        raise SystemExit("benchmarks.data: expected 0 < --short < --long and --turns of 1 or more")
    if chosen.only and OURS not in chosen.only:
        raise SystemExit(f"benchmarks.data: expected {OURS} among --only, as the others are compared with it")
    with TemporaryDirectory() as folder:
        path = chosen.data or Path(folder) / "set"
        if chosen.data is None:
            print(f"drawing {chosen.images:,} faces of {chosen.side} pixels", flush=True)
            people = max(chosen.images // IMAGES_OF_EACH, 1)
            pack_synthetic(path, identities=people, images=IMAGES_OF_EACH, size=chosen.side, workers=1)
        result = measured(chosen, path, Path(folder))
    publish(result, PART, document_part(result), kept=chosen.json, document=chosen.document)
    if "DataLoader + OpenCV" not in contenders():
        print("OpenCV is not installed and was left out: pip install opencv-python-headless")
    return 0


def measured(chosen: argparse.Namespace, path: Path, scratch: Path) -> dict[str, Any]:
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
    found = costs(task, chosen.only or contenders(), turns=chosen.turns, short=chosen.short, long=chosen.long)
    result["loaders"] = loaders(found, images=(chosen.long - chosen.short) * chosen.batch)
    if chosen.training_steps:
        alone_seconds = task.batch / result["loaders"][OURS]["images_per_second"]
        waited = waiting(task, path, scratch / "run", chosen.training_steps)
        result["training"] = {**waited, "loader_alone_seconds": alone_seconds}
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


def waiting(task: Task, path: Path, run_dir: Path, steps: int) -> dict[str, Any]:
    """The mean step of a small IResNet's training, and what of it was waiting for data: the last `steps` of some more.

    One thread decodes, as `data.decode_threads` has it by default.
    """
    settings = {
        "data.train": path,
        "data.image_size": task.side,
        "backbone.autocast": "float32",
        "classifier.products": "float32",
        "schedule.epochs": (FIRST_MEASURED_STEP + steps) * task.batch / len(task.source),
        "schedule.batch_size": task.batch,
        "schedule.warmup_epochs": 0,
        "report.every_steps": 1,
    }
    reports = train(settings, run_dir, ranks=1)[FIRST_MEASURED_STEP:]
    return {
        "name": f"r18 of width 16, {task.source.num_classes:,} classes",
        "batch": task.batch,
        "step_seconds": statistics.mean(report["step_seconds"] for report in reports),
        "wait_seconds": statistics.mean(report["data_wait_seconds"] for report in reports),
    }


def document_part(result: dict[str, Any]) -> str:
    """The table, the wait and the machine, in Markdown."""
    measures = {"cpu_microseconds_per_image": ".0f", "times_our_cpu": ".2f", "images_per_second": ",.0f"}
    rows = [
        [name, *(f"{found[measure]:{form}}" for measure, form in measures.items())]
        for name, found in result["loaders"].items()
    ]
    parts = [table(["loader", "CPU µs an image", "times ours", "images a second"], rows)]
    if training := result.get("training"):
        step, wait = training["step_seconds"], training["wait_seconds"]
        parts.append(
            f"Training ({training['name']}, batches of {training['batch']}): {1e3 * step:.0f} ms a step, of which "
            f"{1e3 * wait:.2f} ms, {100 * wait / step:.2f} %, waiting for data; the loader alone takes "
            f"{1e3 * training['loader_alone_seconds']:.0f} ms a batch."
        )
    parts.append(
        f"{result['images']:,} JPEG images, {result['bytes_per_image']:,.0f} bytes on average, to {result['side']} "
        f"pixels; {result['turns']} turns of {result['long']} batches of {result['batch']} less {result['short']}; "
        f"{result['workers']} threads or workers. {result['machine']}, load {result['load_before']:.1f}. "
        f"{result['date']}."
    )
    return "\n\n".join(parts)


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
    arguments.add_argument("--training-steps", type=int, default=12, help="0: do not train (default: %(default)s)")
    arguments.add_argument("--only", nargs="+", choices=contenders(), help="these loaders; ours must be among them")
    arguments.add_argument("--json", type=Path, help="where the figures go, every turn's included")
    arguments.add_argument("--document", type=Path, help="a Markdown file with the markers of this part")
    return arguments


if __name__ == "__main__":
    raise SystemExit(main())
