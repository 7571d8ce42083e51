"""Sets of millions of images of a few bytes each, in every form that a path can name, made for the clock alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.formats.folders.image_list import FILES_TRIED
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.formats.tar.writer import TarWriter
from data_pipeline.order.shuffled import permuted

IMAGES_OF_EACH = 100
IMAGE = b"\xff\xd8\xff\xe0tiny"  # what opening does not look at
PLACES_AT_A_TIME = 100_000
MOST_OF_A_SHARD = 100_000


def records(folder: Path, images: int) -> Path:
    """A `.rec` and its `.idx`, shuffled and so in im2rec's layout."""
    with RecordWriter(folder / "train.rec") as writer:
        for at in _shuffled(images):
            writer.append(at // IMAGES_OF_EACH, IMAGE)
    return folder / "train.rec"


def numbered_list(folder: Path, images: int) -> Path:
    """`path label`, identity after identity."""
    return _list(folder / "numbers.txt", "{path} {label}\n", images, range(images))


def im2rec_list(folder: Path, images: int) -> Path:
    """im2rec's `key label path`, whose labels have six zeros behind the point, shuffled as im2rec does."""
    return _list(folder / "im2rec.lst", "{key}\t{label:.6f}\t{path}\n", images, _shuffled(images))


def named_list(folder: Path, images: int) -> Path:
    """`path <tab> name`, shuffled: the form that takes longest."""
    return _list(folder / "names.tsv", "{path}\t{name}\n", images, _shuffled(images))


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


def parquet(folder: Path, images: int) -> Path:
    """A column of images and one of names, in groups of 1000 rows."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(_table(images), folder / "set.parquet", row_group_size=1000)
    return folder / "set.parquet"


def arrow(folder: Path, images: int) -> Path:
    """The same table as an Arrow file, in batches of 1000 rows as the Hugging Face library writes them."""
    import pyarrow

    table = _table(images)
    with pyarrow.OSFile(str(folder / "set.arrow"), "wb") as out, pyarrow.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    return folder / "set.arrow"


FORMS: dict[str, Callable[[Path, int], Path]] = {
    ".rec + .idx": records,
    "list, numbers": numbered_list,
    "list, im2rec, shuffled": im2rec_list,
    "list, names, shuffled": named_list,
    "folder per identity": folders,
    "tar shards": shards,
    "Parquet, names": parquet,
    "Arrow, names": arrow,
}


def _name(at: int) -> str:
    return f"person_{at // IMAGES_OF_EACH:06}"


def _path(at: int) -> str:
    return f"{_name(at)}/{at % IMAGES_OF_EACH:04}.jpg"


def _table(images: int) -> Any:
    import pyarrow

    names = [_name(at) for at in range(images)]
    return pyarrow.table({"image": pyarrow.array([IMAGE] * images), "label": pyarrow.array(names)})


def _shuffled(images: int) -> Iterator[int]:
    for first in range(0, images, PLACES_AT_A_TIME):
        places = np.arange(first, min(first + PLACES_AT_A_TIME, images), dtype=np.int64)
        yield from permuted(places, images, 0, 0).tolist()


def _list(path: Path, line: str, images: int, order: Iterable[int]) -> Path:
    """A list with such lines, and those of its images that are looked for when it is opened."""
    tried = set(np.linspace(0, images - 1, FILES_TRIED).astype(np.int64).tolist())
    with path.open("w", encoding="ascii", newline="\n") as file:
        for place, at in enumerate(order):
            file.write(line.format(key=at, label=at // IMAGES_OF_EACH, name=_name(at), path=_path(at)))
            if place in tried:
                image = path.parent / _path(at)
                image.parent.mkdir(exist_ok=True)
                image.write_bytes(IMAGE)
    return path
