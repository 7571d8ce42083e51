"""How long a set of millions of images takes to open, in each form, and how much memory of the process it takes.

    python -m benchmarks.opening --folder /dev/shm                         # 4,000,000 images in each form
    python -m benchmarks.opening --folder /dev/shm --json OUT --document docs/data.md
    python -m benchmarks.opening --set train.rec                           # your set, in any form

The sets are made on the spot, of images of a few bytes: opening looks at none. A table is made by the lines in
docs/data.md, and measured by `--set`. Each opening is timed in a process of its own, in which everything but pyarrow is
imported already; the files are in the page cache. The first opening of a form that keeps an index beside its files is
set apart; of the later ones the least counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from benchmarks.arguments import parser
from benchmarks.documents import publish, table
from benchmarks.machine import this_machine
from benchmarks.opened import Figures
from data_pipeline.formats.folders.image_list import FILES_TRIED
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.formats.tar.writer import TarWriter
from data_pipeline.order.shuffled import permuted

PART = "opening"
IMAGES_OF_EACH = 100
IMAGE = b"\xff\xd8\xff\xe0tiny"  # what opening does not look at
PLACES_AT_A_TIME = 100_000
MOST_OF_A_SHARD = 100_000


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where asked to."""
    chosen = _parser().parse_args(argv)
    forms = made_and_opened(chosen) if chosen.set is None else {chosen.set.name: openings(chosen.set, 1 + chosen.turns)}
    first, *_ = next(iter(forms.values()))
    result = {
        "machine": this_machine("cpu").description,
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "images": first["images"],
        "turns": chosen.turns,
        "forms": forms,
    }
    publish(result, PART, document_part(result), kept=chosen.json, document=chosen.document)
    return 0


def made_and_opened(chosen: argparse.Namespace) -> dict[str, list[Figures]]:
    """The openings of every form; each set is removed before the next is made."""
    forms = {}
    for name in chosen.only or FORMS:
        folder = Path(mkdtemp(prefix="opening-", dir=chosen.folder))
        try:
            print(f"{name}: making {chosen.images:,} images", flush=True)
            forms[name] = openings(FORMS[name](folder, chosen.images), 1 + chosen.turns, chosen.images)
        finally:
            shutil.rmtree(folder)
        print("  ".join(f"{each['seconds']:.2f} s" for each in forms[name]), flush=True)
    return forms


def openings(path: Path, times: int, images: int | None = None) -> list[Figures]:
    """The openings of the set at `path`, one after the other, each by a process of its own (`opened.py`).

    ValueError where the set has another number of images than `images`; CalledProcessError where it does not open.
    """
    command = [sys.executable, "-m", "benchmarks.opened", str(path)]
    found = [json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout) for _ in range(times)]
    if images not in (None, found[0]["images"]):
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
    arguments.add_argument("--set", type=Path, metavar="PATH", help="a set that is there, in place of those made here")
    arguments.add_argument("--images", type=int, default=4_000_000, help="of each set (default: %(default)s)")
    arguments.add_argument("--turns", type=int, default=3, help="openings after the first (default: %(default)s)")
    arguments.add_argument("--folder", type=Path, help="where the sets are made, up to 0.5 GB (default: temporary)")
    arguments.add_argument("--only", nargs="+", choices=FORMS, help="these forms")
    arguments.add_argument("--json", type=Path, help="where the figures go, every opening's")
    arguments.add_argument("--document", type=Path, help="a Markdown file with the markers of this part")
    return arguments


# The sets


def records(folder: Path, images: int) -> Path:
    """A `.rec` and its `.idx`, shuffled and so in im2rec's layout."""
    with RecordWriter(folder / "train.rec") as writer:
        for at in _shuffled(images):
            writer.append(at // IMAGES_OF_EACH, IMAGE)
    return folder / "train.rec"


def listed(name: str, line: str, order: Callable[[int], Iterable[int]], folder: Path, images: int) -> Path:
    """A list with such lines in that order, and those of its images that are looked for when it is opened.

    im2rec's lines are `key label path`, its labels with six zeros behind the point; shuffled names take longest.
    """
    tried = set(np.linspace(0, images - 1, FILES_TRIED).astype(np.int64).tolist())
    with (folder / name).open("w", encoding="ascii", newline="\n") as file:
        for place, at in enumerate(order(images)):
            file.write(line.format(key=at, label=at // IMAGES_OF_EACH, name=_name(at), path=_path(at)))
            if place in tried:
                image = folder / _path(at)
                image.parent.mkdir(exist_ok=True)
                image.write_bytes(IMAGE)
    return folder / name


def folders(folder: Path, images: int) -> Path:
    """One folder per identity; the images of each are one file under many names, which spares room."""
    root = folder / "folders"
    for first in range(0, images, IMAGES_OF_EACH):
        (root / _name(first)).mkdir(parents=True)
        (root / _path(first)).write_bytes(IMAGE)
        for at in range(first + 1, min(first + IMAGES_OF_EACH, images)):
            os.link(root / _path(first), root / _path(at))
    return root


def shards(folder: Path, images: int) -> Path:
    """Tar shards; from the second on they are the first under other names, which spares their room."""
    with TarWriter(folder / "shards", images_per_shard=MOST_OF_A_SHARD) as writer:
        for at in range(min(images, MOST_OF_A_SHARD)):
            writer.append(at // IMAGES_OF_EACH, IMAGE)
    for shard in range(1, -(-images // MOST_OF_A_SHARD)):
        os.link(writer.shards[0], folder / "shards" / f"shard-{shard:06}.tar")
    return folder / "shards"


def _name(at: int) -> str:
    return f"person_{at // IMAGES_OF_EACH:06}"


def _path(at: int) -> str:
    return f"{_name(at)}/{at % IMAGES_OF_EACH:04}.jpg"


def _shuffled(images: int) -> Iterator[int]:
    for first in range(0, images, PLACES_AT_A_TIME):
        places = np.arange(first, min(first + PLACES_AT_A_TIME, images), dtype=np.int64)
        yield from permuted(places, images, 0, 0).tolist()


FORMS: dict[str, Callable[[Path, int], Path]] = {
    ".rec + .idx": records,
    "list, numbers": partial(listed, "numbers.txt", "{path} {label}\n", range),
    "list, im2rec, shuffled": partial(listed, "im2rec.lst", "{key}\t{label:.6f}\t{path}\n", _shuffled),
    "list, names, shuffled": partial(listed, "names.tsv", "{path}\t{name}\n", _shuffled),
    "folder per identity": folders,
    "tar shards": shards,
}


if __name__ == "__main__":
    raise SystemExit(main())
