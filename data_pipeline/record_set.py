"""A set of encoded images written as users of arcface_torch know it, identity after identity, by several workers.

``train.rec`` and ``train.idx``, ``property`` (``num_classes,height,width``) and, beside them, ``identities.tsv``, which
says what each label is called and how many images it has.
"""

from __future__ import annotations

import csv
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from rich.console import Console
from rich.progress import track

from data_pipeline.recordio import RecordWriter

FILES = ("train.rec", "train.idx", "property", "identities.tsv")
MOST_NAMED = 5  # complaints in one message
AHEAD = 4  # identities per processor core that may be encoded before they can be written


class Encoded(NamedTuple):
    """The images of one identity, ready to be written, and what is wrong with those that are missing."""

    images: list[bytes]
    complaints: list[str]


class Identity(NamedTuple):
    """A name, and the call that encodes its images, which may run in another thread or process."""

    name: str
    encoded: Callable[[], Encoded]


def write_set(identities: Iterable[Identity], out: Path, pool: Executor, *, total: int) -> None:
    """Write ``identities``, encoded in ``pool``, with labels 0, 1, ... in the order given; ``total`` is for the bar.

    The records appear whole or not at all: ValueError with all complaints, and FileExistsError where ``out`` holds a
    file of a set already, leave everything as it was.
    """
    for name in FILES:
        if (out / name).exists():
            raise FileExistsError(f"{out / name} exists and is not overwritten: remove it or choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[int, str, int]] = []
    complaints: list[str] = []
    first = b""
    with RecordWriter(out / "train.rec") as writer:
        encoded = _encoded_in_order(identities, pool)
        for label, (name, done) in enumerate(track(encoded, f"packing {out}", total, console=Console(stderr=True))):
            for image in done.images:
                writer.append(label, image)
                first = first or image
            rows.append((label, name, len(done.images)))
            complaints += done.complaints
        if complaints:
            raise ValueError(f"{listed(complaints)}: mend or remove what is named (nothing was packed)")
    _write_names(out, rows, first)


def _encoded_in_order(identities: Iterable[Identity], pool: Executor) -> Iterator[tuple[str, Encoded]]:
    """Names and images in the order given, with no more than a few identities encoded ahead of the writer."""
    waiting: deque[tuple[str, Future[Encoded]]] = deque()
    try:
        for name, encoded in identities:
            waiting.append((name, pool.submit(encoded)))
            if len(waiting) > AHEAD * (os.cpu_count() or 1):
                name, done = waiting.popleft()
                yield name, done.result()
        while waiting:
            name, done = waiting.popleft()
            yield name, done.result()
    finally:
        for _, done in waiting:
            done.cancel()


def _write_names(out: Path, rows: list[tuple[int, str, int]], first: bytes) -> None:
    with Image.open(io.BytesIO(first)) as image:
        (out / "property").write_text(f"{len(rows)},{image.height},{image.width}\n", encoding="ascii")
    with (out / "identities.tsv").open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([("label", "identity", "images"), *rows])


def process_pool(workers: int) -> Executor:
    """Workers that are spawned, since the fork of a process with threads can hang; one alone is a thread."""
    return ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else ThreadPoolExecutor(1)


def listed(complaints: list[str]) -> str:
    """The first complaints, and how many more there are."""
    more = f" and {len(complaints) - MOST_NAMED} more" if len(complaints) > MOST_NAMED else ""
    return ", ".join(complaints[:MOST_NAMED]) + more
