"""A set of any form that is read made into one of any form that is written, in parts, by several workers at once.

Threads read and write the parts, of which each is a file: with the bytes of the images as they are, a core moves some
ten thousand a second. Where images are encoded anew, processes do that. Parts are joined in their order as they come,
and removed, so that the disk never holds the set twice; tar shards are parts as they are. The result is the same to the
byte for any number of workers and of interruptions.
"""

from __future__ import annotations

import os
import shutil
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_pipeline.checking.checksums import CHECKSUMS, DTYPE
from data_pipeline.converting.parts import Encode, PartWriter, encoded_anew
from data_pipeline.converting.plan import ConversionPlan, Form, conversion_plan, description
from data_pipeline.converting.work_folder import WorkFolder, refuse_existing
from data_pipeline.files.whole_file import WholeFile
from data_pipeline.formats.recordio.layout import fits_insightface, identity_records, index_lines
from data_pipeline.formats.table.names import GUESSED, ColumnNames
from data_pipeline.sets.identities import label_names, write_identities, write_property
from data_pipeline.sets.joined import Join
from data_pipeline.source import Source
from data_pipeline.workers import in_order, process_pool, progress_bar

COPIED_BYTES = 8 << 20  # at a time


def convert(
    paths: Sequence[Path],
    out: Path,
    *,
    to: Form = "rec",
    shuffle: int | None = None,
    join: Join = "offset",
    columns: ColumnNames = GUESSED,
    root: Path | None = None,
    workers: int | None = None,
    images_per_part: int | None = None,
    size: int | None = None,
    quality: int = 95,
    quarantine: Path | None = None,
    progress: bool = False,
) -> Source:
    """The set at `paths`, written into the new folder `out` as `train.rec` with its `.idx`, or as tar shards.

    Beside them lie `property`, `identities.tsv` and `checksums.npy`. Images keep their order, unless `shuffle` is the
    seed of another, of all of them; their labels, which `join` makes for several sets (see `JoinedSource`), unless some
    label up to the largest has no image: then labels are numbered anew, and `identities.tsv` has what they were; and
    their bytes, unless `size` asks for JPEGs of that side and of `quality`. A .rec whose identities come one after the
    other has InsightFace's layout, any other im2rec's. Checksums beside the source are compared with what is read.
    Images listed in `quarantine`, which `partial-fc verify` writes, are left out.

    `out` appears whole or not at all. Until then all lies in `OUT.partial`: called again after an interruption, with
    the same arguments and source, this goes on with the parts that are missing. `images_per_part` is also that of a
    shard; unless given, a part has 100,000 images or some 256 MB. Holds some megabytes per worker beside the opened
    source. A script that calls this with `size` needs its `if __name__ == "__main__"`.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"{workers} workers: expected at least 1")
    refuse_existing(out)
    for path in paths:
        if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(path)):
            raise ValueError(f"{out} lies in {path}, which is to be read: choose a folder beside it")
    plan = conversion_plan(
        paths,
        to=to,
        seed=shuffle,
        join=join,
        columns=columns,
        root=root,
        size=size,
        quality=quality,
        images_per_part=images_per_part,
        quarantine=quarantine,
    )
    with WorkFolder(out, description(plan, paths)) as folder:
        _write_parts(plan, folder, workers or os.cpu_count() or 1, progress)
        if to == "rec":
            _finish_records(plan, folder)
        _write_beside(plan, folder, paths)
        folder.publish()
    return plan.source


def _write_parts(plan: ConversionPlan, folder: WorkFolder, workers: int, progress: bool) -> None:
    """Every part written, and joined to those before it if it holds records."""
    with ExitStack() as stack:
        bar = stack.enter_context(progress_bar(shown=progress))
        task = bar.add_task("converting", total=len(plan.source))
        encode = _encode(plan, stack.enter_context(process_pool(workers))) if plan.size else None
        writer = PartWriter(plan, folder, encode, lambda images: bar.advance(task, images))
        threads = stack.enter_context(ThreadPoolExecutor(workers))
        stack.callback(writer.stop)  # before the threads are waited for
        start = 0
        for part, future in in_order(range(plan.num_parts), lambda at: threads.submit(writer.write, at), workers):
            done = future.result()
            if plan.to == "rec":
                _join(folder, part, start, done.record_bytes)
                start += done.record_bytes


def _encode(plan: ConversionPlan, pool: Executor) -> Encode:
    def encode(images: list[bytes]) -> list[bytes | str]:
        assert plan.size is not None
        try:
            return pool.submit(encoded_anew, images, plan.size, plan.quality).result()
        except BrokenProcessPool as error:
            raise OSError(
                "a process that encodes was killed (a crash of the decoder, or lack of memory): `partial-fc verify` "
                "names an image that does it; fewer workers need less memory. The same command goes on from here"
            ) from error

    return encode


def _join(folder: WorkFolder, part: int, start: int, size: int) -> None:
    """Appends a part's records, whose place is byte `start`, to all before them, and removes its file."""
    path, joined = folder.records(part), folder.set / "train.rec"
    if not path.exists():  # an earlier run did this
        if not joined.exists() or joined.stat().st_size < start + size:
            raise ValueError(f"{folder.path} is damaged: the records of part {part} are gone; remove it to begin anew")
        return
    with path.open("rb") as source, _rest_of(joined, start) as target:
        shutil.copyfileobj(source, target, COPIED_BYTES)
    path.unlink()


@contextmanager
def _rest_of(path: Path, start: int) -> Iterator[BinaryIO]:
    """A file to be written from byte `start` on; what it held there is cut off."""
    path.touch()
    with path.open("r+b") as file:
        file.seek(start)
        file.truncate()
        yield file
        file.flush()
        os.fsync(file.fileno())


def _finish_records(plan: ConversionPlan, folder: WorkFolder) -> None:
    """Adds to `train.rec` what the InsightFace layout has more than images, if it can be true, and writes the index."""
    images, first_keys = len(plan.source), _first_keys(plan)
    has_header = first_keys is not None and fits_insightface(images, len(first_keys))
    end = sum(int(folder.columns(part)["record_bytes"].sum()) for part in range(plan.num_parts))
    added = array("q")
    with _rest_of(folder.set / "train.rec", end) as file:
        for record in identity_records(first_keys, images) if first_keys is not None and has_header else ():
            added.append(file.tell())
            file.write(record)
    offsets = chain(_offsets(plan, folder), added)
    with WholeFile(folder.set / "train.idx") as file:
        file.writelines(map(str.encode, index_lines(offsets, images + len(added), has_header=has_header)))


def _first_keys(plan: ConversionPlan) -> list[int] | None:
    """The key of the first image of each identity, if the images of each stand in a row; else None."""
    was_seen, last = np.zeros(plan.source.num_classes, np.bool_), -1
    first_keys: list[int] = []
    for part in range(plan.num_parts):
        labels = plan.labels(part)
        starts = np.flatnonzero(np.diff(labels, prepend=last))
        begun = labels[starts]
        if was_seen[begun].any() or np.unique(begun).size < begun.size:
            return None
        was_seen[begun], last = True, int(labels[-1])
        first_keys += (starts + plan.places(part).start + 1).tolist()
    return first_keys


def _offsets(plan: ConversionPlan, folder: WorkFolder) -> Iterator[int]:
    start = 0
    for part in range(plan.num_parts):
        sizes = folder.columns(part)["record_bytes"]
        ends = start + np.cumsum(sizes)
        yield from (ends - sizes).tolist()
        start = int(ends[-1])


def _write_beside(plan: ConversionPlan, folder: WorkFolder, paths: Sequence[Path]) -> None:
    """What lies beside the images: checksums, the names of the labels, and what arcface_torch wants to know."""
    source = plan.source
    checksums = np.lib.format.open_memmap(folder.set / CHECKSUMS, "w+", DTYPE, (len(source),))
    for part in range(plan.num_parts):
        places = plan.places(part)
        checksums[places.start : places.stop] = folder.columns(part)["crc32"]
    checksums.flush()
    names = label_names(source, paths[0] if len(paths) == 1 else None)
    labels, counts = (found.tolist() for found in np.unique(source.labels, return_counts=True))
    rows = ((label, names.get(label, str(label)), images) for label, images in zip(labels, counts, strict=True))
    write_identities(folder.set, rows)
    write_property(folder.set, source.num_classes, plan.width, plan.height)
