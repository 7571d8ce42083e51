"""A set of encoded images written as users of arcface_torch know it, identity after identity, by several workers.

``train.rec`` and ``train.idx``, ``property`` (``num_classes,height,width``) and, beside them, ``identities.tsv``, which
says what each label is called and how many images it has.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from data_pipeline.complaints import listed
from data_pipeline.files.whole_folder import whole_folder
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.sets.identities import IDENTITIES, PROPERTY, write_identities, write_property
from data_pipeline.workers import in_order

FILES = ("train.rec", "train.idx", PROPERTY, IDENTITIES)
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

    The files appear whole or not at all: ValueError with all complaints, FileExistsError where ``out`` holds a file of
    a set already, and an interruption leave everything as it was.
    """
    for name in FILES:
        if (out / name).exists():
            raise FileExistsError(f"{out / name} exists and is not overwritten: remove it or choose another folder")
    with whole_folder(out) as folder:
        _write_files(identities, folder, pool, f"packing {out}", total)


def _write_files(identities: Iterable[Identity], out: Path, pool: Executor, task: str, total: int) -> None:
    rows: list[tuple[int, str, int]] = []
    complaints: list[str] = []
    first = b""
    with RecordWriter(out / "train.rec") as writer:
        encoded = in_order(identities, lambda identity: pool.submit(identity.encoded), AHEAD * (os.cpu_count() or 1))
        shown = track(encoded, escape(task), total, console=Console(stderr=True))
        for label, (identity, future) in enumerate(shown):
            done = future.result()
            for image in done.images:
                writer.append(label, image)
                first = first or image
            rows.append((label, identity.name, len(done.images)))
            complaints += done.complaints
        if complaints:
            raise ValueError(f"{listed(complaints)}: mend or remove what is named (nothing was packed)")
    with Image.open(io.BytesIO(first)) as picture:
        write_property(out, len(rows), picture.width, picture.height)
    write_identities(out, rows)
