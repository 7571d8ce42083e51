"""Single measurements of a large set, each made by a process of its own: `python -m benchmarks.scale.probes NAME DIR`.

Each prints one JSON object. What only one of them needs it imports itself: imports would show in the others' figures.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from data_pipeline.formats.by_path import open_source
from data_pipeline.order.shuffled import ShuffledOrder

KIBIBYTE = 1 << 10
PLACES_AT_A_TIME = 1 << 20
Figures = dict[str, float]


def opening(folder: Path) -> Figures:
    """Seconds by the clock and of all cores, and the process's resident memory before and after; imports are done."""
    before, used, began = status_bytes(os.getpid(), "VmRSS"), time.process_time(), time.perf_counter()
    source = open_source(folder)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - used,
        "images": len(source),
        "before_bytes": before,
        "after_bytes": status_bytes(os.getpid(), "VmRSS"),
    }


def first_batch(folder: Path, *, size: int, batch: int, start_seconds: float) -> Figures:
    """Seconds until the first decoded batch of the loader that training uses; `start_seconds` is the process's start,
    by the clock of all processes."""
    from data_pipeline.loader.image_loader import ImageFormat, ImageLoader

    began = time.time()
    source = open_source(folder)
    form = ImageFormat(size, size, channels_last=True)
    images = len(next(ImageLoader(source, form, global_batch=batch, rank=0, size=1, seed=0)).labels)
    now = time.time()
    return {"from_start_seconds": now - start_seconds, "from_opening_seconds": now - began, "images": images}


def shuffle(folder: Path, *, seed: int) -> Figures:
    """Whether one epoch's order has every image exactly once, and how far it moves them.

    `displacement` is the mean distance between an image's place in the set and in the epoch, over the number of images:
    1/3 where every order is as likely as any other, 0.02 for a buffer of 2.5 % of the set.
    """
    images = len(open_source(folder))
    order = ShuffledOrder(images, seed)
    times_seen = np.zeros(images, np.uint8)
    began, distance = time.perf_counter(), 0
    for first in range(0, images, PLACES_AT_A_TIME):
        places = np.arange(first, min(first + PLACES_AT_A_TIME, images))
        epochs, samples = order.samples_at(places)
        if epochs.any():
            raise ValueError(f"places {first} to {places[-1]} of an epoch of {images} images belong to a later epoch")
        np.add.at(times_seen, samples, 1)
        distance += int(np.abs(samples - places).sum())
    return {
        "seconds": time.perf_counter() - began,
        "images": images,
        "seen_once": int((times_seen == 1).sum()),
        "displacement": distance / images**2,
    }


def status_bytes(process: int, field: str) -> int:
    """A line of `/proc/PID/status`; 0 where the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * KIBIBYTE for line in lines if line.startswith(f"{field}:"))


def main() -> int:
    """Make one measurement and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale.probes", description=__doc__)
    kinds = parser.add_subparsers(required=True)
    for name in ("opening", "first_batch", "shuffle"):
        kind = kinds.add_parser(name)
        kind.add_argument("folder", type=Path)
        kind.set_defaults(probe=globals()[name])
        if name == "first_batch":
            kind.add_argument("--size", type=int, required=True)
            kind.add_argument("--batch", type=int, required=True)
            kind.add_argument("--start-seconds", type=float, required=True)
        if name == "shuffle":
            kind.add_argument("--seed", type=int, default=0)
    chosen = vars(parser.parse_args())
    print(json.dumps(chosen.pop("probe")(**chosen)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
