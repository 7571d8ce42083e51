"""A conversion before any of it is done: which image goes where, and what tells it from another conversion."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_pipeline.checking.checksums import Checksums, stored_checksums
from data_pipeline.checking.quarantine import quarantined_samples
from data_pipeline.formats.by_path import source_at
from data_pipeline.formats.recordio.layout import LARGEST_EXACT
from data_pipeline.formats.table.names import SUFFIXES as TABLE_SUFFIXES
from data_pipeline.formats.table.names import ColumnNames
from data_pipeline.images.headers import image_header
from data_pipeline.images.jpeg import check_form
from data_pipeline.order.shuffled import permuted
from data_pipeline.sets.fingerprint import fingerprint
from data_pipeline.sets.joined import Join
from data_pipeline.sets.selected import SelectedSource, numbered_without_gaps
from data_pipeline.source import Source

Form = Literal["rec", "tar"]
Description = dict[str, int | str | None]
MOST_IMAGES_PER_PART, PART_BYTES = 100_000, 256 << 20  # of a part, whichever is reached first as far as probes can tell
PROBES = 64
DATA_SUFFIXES = (".rec", ".idx", ".tar", *TABLE_SUFFIXES)


@dataclass(frozen=True)
class ConversionPlan:
    """All images of `source` in the order in which they are to be written, cut into parts of equal length.

    `seed` shuffles all of them; without it they keep their order. With `size` they become JPEGs of that side and
    `quality`, without it they keep their bytes. `width` and `height` are those of an image that was looked at.
    """

    source: Source
    checksums: Checksums | None
    to: Form
    seed: int | None
    size: int | None
    quality: int
    images_per_part: int
    width: int
    height: int

    def checksum_problem(self, sample: int, encoded: bytes) -> str | None:
        """`checksum: ...` if the bytes of an image are not those that were written into the source, else None."""
        if self.checksums is None:
            return None
        if isinstance(self.source, SelectedSource):
            sample = self.source.original_sample(sample)
        return self.checksums.problem(sample, encoded)

    @property
    def num_parts(self) -> int:
        """How many parts there are; the last may be shorter than the others."""
        return -(-len(self.source) // self.images_per_part)

    def places(self, part: int) -> range:
        """Where the images of a part stand among all that are written."""
        first = part * self.images_per_part
        return range(first, min(first + self.images_per_part, len(self.source)))

    def samples(self, part: int) -> NDArray[np.int64]:
        """The images of a part, in the order in which they are written."""
        places = np.arange(self.places(part).start, self.places(part).stop, dtype=np.int64)
        return places if self.seed is None else permuted(places, len(self.source), self.seed, 0)

    def labels(self, part: int) -> NDArray[np.int64]:
        """The classes of a part's images."""
        return self.source.labels[self.samples(part)]


def conversion_plan(
    paths: Sequence[Path],
    *,
    to: Form,
    seed: int | None,
    join: Join,
    columns: ColumnNames,
    size: int | None,
    quality: int,
    images_per_part: int | None,
    root: Path | None = None,
    quarantine: Path | None = None,
) -> ConversionPlan:
    """The conversion of the set at `paths`, without the images listed in `quarantine`.

    ValueError for what cannot be converted, before any work is done.
    """
    check_form(size, quality)
    if to not in ("rec", "tar"):
        raise ValueError(f"to {to!r}: expected 'rec' or 'tar'")
    if images_per_part is not None and images_per_part < 1:
        raise ValueError(f"{images_per_part} images in a part or shard: expected at least 1")
    found = source_at(paths, join=join, columns=columns, root=root)
    left_out = quarantined_samples(quarantine, found) if quarantine is not None else ()
    source = SelectedSource(found, left_out=left_out) if len(left_out) else numbered_without_gaps(found)
    if to == "rec" and (largest := int(source.labels.max())) > LARGEST_EXACT:
        raise ValueError(
            f"label {largest}: a .rec keeps labels as float32, exact to 2**24 = {LARGEST_EXACT} only: write tar shards"
        )
    mean_bytes, width, height = _looked_at(source)
    if size is not None:
        mean_bytes, width, height = min(mean_bytes, size * size), size, size
    fitting = min(MOST_IMAGES_PER_PART, max(1, PART_BYTES // max(mean_bytes, 1)))
    checksums = stored_checksums(paths, found)
    return ConversionPlan(source, checksums, to, seed, size, quality, images_per_part or fitting, width, height)


def description(plan: ConversionPlan, paths: Sequence[Path]) -> Description:
    """What must be equal for two runs to be the same conversion: a few words that JSON can hold.

    The source is known by its count, all its labels, the bytes of 64 images spread evenly, and the sizes and times of
    the files named or lying in the folders named (an image folder's images are not asked for theirs).
    """
    return {
        "form": 1,  # of what lies in the work folder: a new number whenever that changes
        "images": len(plan.source),
        "labels": f"{zlib.crc32(np.ascontiguousarray(plan.source.labels).data):08x}",
        "contents": fingerprint(plan.source),
        "files": files_mark(paths),
        "to": plan.to,
        "shuffle": plan.seed,
        "size": plan.size,
        "quality": plan.quality if plan.size is not None else None,
        "images per part": plan.images_per_part,
    }


def _looked_at(source: Source) -> tuple[int, int, int]:
    """The mean length in bytes of a few images, and the width and height of the first that has any."""
    lengths: list[int] = []
    width = height = 0
    for sample in np.unique(np.linspace(0, len(source) - 1, PROBES).astype(np.int64)).tolist():
        with suppress(OSError, ValueError):  # damage of one image, which is named when its turn comes
            encoded = source.read(sample).tobytes()
            lengths.append(len(encoded))
            if not width:
                _, width, height = image_header(encoded)
    if not width:
        raise ValueError(f"none of {len(lengths)} images looked at has the header of an image: `partial-fc verify` it")
    return sum(lengths) // len(lengths), width, height


def files_mark(paths: Sequence[Path]) -> str:
    """A digest of the names, sizes and times of the files named, or lying in the folders named."""
    checksum = hashlib.sha256()
    for path in paths:
        for file in _data_files(path):
            found = file.stat()
            checksum.update(f"{file.name} {found.st_size} {found.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return checksum.hexdigest()[:16]


def _data_files(path: Path) -> list[Path]:
    if path.is_dir():
        with os.scandir(path) as entries:
            return sorted(Path(e.path) for e in entries if e.name.lower().endswith(DATA_SUFFIXES) and e.is_file())
    beside = [path.with_suffix(".idx")] if path.suffix.lower() == ".rec" else []
    return [file for file in (path, *beside) if file.is_file()]
