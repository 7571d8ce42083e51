"""A checksum per image, kept beside a set, which shows what no decoder sees: a byte changed inside a JPEG.

`checksums.npy` holds the CRC-32 (that of zlib, PNG and gzip) of the encoded bytes of every image, in the order of the
samples: a NumPy array of `uint32`, little endian, 4 bytes an image.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.sets.joined import joined_sets
from data_pipeline.source import Source

CHECKSUMS = "checksums.npy"
DTYPE = np.dtype("<u4")


class Checksums:
    """What is known of the images of one or several sets in a row: an array per set, or None for one that has none."""

    def __init__(self, sizes: Sequence[int], kept: Sequence[NDArray[np.uint32] | None]) -> None:
        self._starts: list[int] = np.cumsum([0, *sizes]).tolist()
        self._kept = kept

    def problem(self, sample: int, encoded: bytes) -> str | None:
        """`checksum: ...` if the bytes of an image are not those that were written, else None."""
        at = bisect_right(self._starts, sample) - 1
        kept = self._kept[at]
        if kept is None or (found := zlib.crc32(encoded)) == (written := int(kept[sample - self._starts[at]])):
            return None
        return f"checksum: its {len(encoded):,} bytes have CRC-32 {found:08x}, {written:08x} was written"


def stored_checksums(paths: Sequence[Path], source: Source) -> Checksums | None:
    """The checksums beside the sets at `paths`, which `source` has opened; None where there are none.

    They belong to a folder, or to the .rec in it, not to single shards. ValueError for a file that is damaged, or has
    not a checksum for every image.
    """
    sources = joined_sets(source)
    if len(paths) != len(sources):
        return None  # shards given one by one
    kept = [_kept(path, len(each)) for path, each in zip(paths, sources, strict=True)]
    return Checksums([len(each) for each in sources], kept) if any(each is not None for each in kept) else None


def _kept(path: Path, images: int) -> NDArray[np.uint32] | None:
    folder = path if path.is_dir() else path.parent
    file = folder / CHECKSUMS
    if not (path.is_dir() or path.suffix.lower() == ".rec") or not file.is_file():
        return None
    try:
        kept: NDArray[np.uint32] = np.load(file, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file} cannot be read ({error}): copy it again, or remove it to go without") from error
    if kept.dtype != DTYPE or kept.shape != (images,):
        raise ValueError(
            f"{file} holds {kept.dtype} of shape {kept.shape} and the set {images:,} images: expected a uint32 each. "
            "It belongs to another set: copy it again, or remove it to go without"
        )
    return kept
