"""Single measurements of a large set, each by a process of its own that imports no more than it needs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import status_bytes
from data_pipeline.formats.by_path import source_at
from data_pipeline.order.shuffled import ShuffledOrder

PLACES_AT_A_TIME = 1 << 20
Figures = dict[str, float]


def opening(path: str) -> Figures:
    """Seconds by the clock and of all cores, and the process's resident memory; all but pyarrow is imported before."""
    before, used, began = status_bytes("VmRSS"), time.process_time(), time.perf_counter()
    source = source_at(Path(path))
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - used,
        "images": len(source),
        "before_bytes": before,
        "after_bytes": status_bytes("VmRSS"),
        "peak_bytes": status_bytes("VmHWM") - before,
    }


def first_batch(path: str, *, size: int, batch: int, start_seconds: float) -> Figures:
    """Seconds until the first decoded batch of the loader that training uses; `start_seconds` is the process's start,
    by the clock of all processes.
    """
    from data_pipeline.loader.image_loader import ImageFormat, ImageLoader

    began = time.time()
    form = ImageFormat(size, size, channels_last=True)
    loader = ImageLoader(source_at(Path(path)), form, global_batch=batch, rank=0, size=1, seed=0)
    images, now = len(next(loader).labels), time.time()
    return {"from_start_seconds": now - start_seconds, "from_opening_seconds": now - began, "images": images}


def shuffle(path: str) -> Figures:
    """Whether one epoch's order has every image exactly once, and how far it moves them.

    `displacement` is the mean distance between an image's place in the set and in the epoch, over the number of images:
    1/3 where every order is as likely as any other, 0.02 for a buffer of 2.5 % of the set.
    """
    images = len(source_at(Path(path)))
    order, times_seen = ShuffledOrder(images, seed=0), np.zeros(images, np.uint8)
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


def probed(probe: Callable[..., Figures], path: Path, **options: float) -> Figures:
    """What one probe of this file finds at `path`, in a process of its own. CalledProcessError where it fails."""
    words = [probe.__name__, json.dumps({"path": str(path), **options})]
    command = [sys.executable, "-m", __name__, *words]
    found: Figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


if __name__ == "__main__":
    name, given = sys.argv[1:]
    arguments: dict[str, Any] = json.loads(given)
    print(json.dumps(globals()[name](**arguments)))
