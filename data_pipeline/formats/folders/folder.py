"""A folder with one folder of images per identity."""

from __future__ import annotations

import hashlib
import os
import time
from array import array
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.complaints import listed
from data_pipeline.files.kept_index import keep_index, kept_index
from data_pipeline.files.packed_texts import PackedTexts
from data_pipeline.formats.folders.file_source import IMAGE_SUFFIXES, FileSource

SCANNING_THREADS = 16  # a network file system answers each question late, but many at a time
FOLDERS_IN_A_TASK = 64
FOLDERS_IN_A_WAVE = 64 * SCANNING_THREADS * FOLDERS_IN_A_TASK  # bounds the Python strings that exist at a time
INDEX, FORM = ".folder-index.npz", 1  # a new number whenever what is kept changes
KEPT_FROM_IMAGES = 100_000  # fewer are listed in half a second
SETTLED_NS = 2_000_000_000  # a folder changed just now may change again within the same tick of the file system's clock
SUFFIXES = frozenset(map(os.fsencode, IMAGE_SUFFIXES))


class FolderSource(FileSource):
    """The images of `path`, identity after identity: labels 0, 1, ... and images in the order of their names.

    Opening lists every folder: 25 us for one of five images whose names the machine has in memory, more on a network.
    Of 100,000 images and more it keeps what it found in `.folder-index.npz`, where it may write; later openings read
    that for as long as no folder was changed: 2 us a folder. Hidden files are passed over. ValueError, after all was
    looked at, names folders without images and files that are none; whether an image can be decoded is found when it is
    read.
    """

    def __init__(self, path: Path) -> None:
        path = Path(path)
        identities = _identity_folders(path)
        began_ns, times = time.time_ns(), _times_ns(path, identities)
        seal = _seal(identities, times)
        kept = _whole(kept_index(path / INDEX, seal), len(identities))
        text, sizes, counts = kept or _listed(path, identities)
        if kept is None and sizes.size >= KEPT_FROM_IMAGES and began_ns - times.max() > SETTLED_NS:
            keep_index(path / INDEX, seal, {"text": text, "sizes": sizes, "counts": counts})
        edges = np.concatenate([np.zeros(1, np.int64), sizes.astype(np.int64)]).cumsum()
        labels = np.repeat(np.arange(len(identities)), counts)
        super().__init__(path, PackedTexts(text, edges), labels, PackedTexts.of(identities))


class _Listing(NamedTuple):
    """What some identities' folders hold: paths below the root, how many each, and what is wrong."""

    paths: list[bytes]
    counts: list[int]
    complaints: list[str]


class _Contents(NamedTuple):
    """What all folders hold: the paths one behind the other, the bytes of each, and how many each folder has."""

    text: NDArray[np.uint8]
    sizes: NDArray[np.uint32]
    counts: NDArray[np.int64]


def _listed(path: Path, identities: list[bytes]) -> _Contents:
    complaints: list[str] = []
    counts: list[int] = []
    joined, sizes = bytearray(), array("I")
    for paths in _checked(_listings(path, identities), counts, complaints):
        joined += b"".join(paths)
        sizes.extend(map(len, paths))
    if complaints:
        raise ValueError(f"{listed(complaints)}: mend or remove what is named")
    return _Contents(np.frombuffer(joined, np.uint8), np.frombuffer(sizes, np.uint32), np.array(counts, np.int64))


def _times_ns(root: Path, identities: list[bytes]) -> NDArray[np.int64]:
    """When each folder last gained, lost or renamed a file: the change time, which no copying tool sets back."""
    encoded = os.fsencode(root)

    def times(task: list[bytes]) -> list[int]:
        return [os.stat(os.path.join(encoded, identity)).st_ctime_ns for identity in task]

    tasks = (identities[at : at + FOLDERS_IN_A_TASK] for at in range(0, len(identities), FOLDERS_IN_A_TASK))
    with ThreadPoolExecutor(SCANNING_THREADS) as pool:
        return np.fromiter(chain.from_iterable(pool.map(times, tasks)), np.int64, len(identities))


def _seal(identities: list[bytes], times: NDArray[np.int64]) -> NDArray[np.uint8]:
    digest = hashlib.sha256(b"%d/" % FORM + b"/".join(identities))
    digest.update(times.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _whole(arrays: Mapping[str, NDArray[Any]] | None, identities: int) -> _Contents | None:
    """What was kept, or None where its arrays do not fit each other."""
    if arrays is None or set(arrays) != set(_Contents._fields):
        return None
    found = _Contents(**arrays)
    kinds = [(column.dtype, column.ndim) for column in found]
    is_whole = kinds == [(np.dtype(kind), 1) for kind in (np.uint8, np.uint32, np.int64)]
    is_whole = is_whole and found.counts.size == identities and found.counts.sum() == found.sizes.size
    return found if is_whole and found.sizes.sum(dtype=np.int64) == found.text.size else None


def _identity_folders(path: Path) -> list[bytes]:
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder: expected one with a folder of images per identity")
    with os.scandir(os.fsencode(path)) as found:
        entries = [(entry.name, entry.is_dir()) for entry in found if not entry.name.startswith(b".")]
    if stray := sorted(os.path.join(path, os.fsdecode(name)) for name, is_folder in entries if not is_folder):
        raise ValueError(f"{listed(stray)}: expected folders only, one per identity; move files into theirs, or away")
    if not entries:
        raise ValueError(f"{path} has no folders in it: expected one folder of images per identity")
    return sorted(name for name, _ in entries)


def _listings(root: Path, identities: list[bytes]) -> Iterator[_Listing]:
    """The folders' contents in the order given, never more than a wave of them at a time."""
    encoded = os.fsencode(root)
    with ThreadPoolExecutor(SCANNING_THREADS) as pool:
        for first in range(0, len(identities), FOLDERS_IN_A_WAVE):
            wave = identities[first : first + FOLDERS_IN_A_WAVE]
            tasks = (wave[at : at + FOLDERS_IN_A_TASK] for at in range(0, len(wave), FOLDERS_IN_A_TASK))
            yield from pool.map(lambda task: _listing(encoded, task), tasks)


def _listing(root: bytes, identities: list[bytes]) -> _Listing:
    listing = _Listing([], [], [])
    for identity in identities:
        with os.scandir(os.path.join(root, identity)) as found:
            entries = sorted((entry.name, entry.is_dir()) for entry in found if not entry.name.startswith(b"."))
        folder = os.path.join(os.fsdecode(root), os.fsdecode(identity))
        for name, is_folder in entries:
            if is_folder or os.path.splitext(name)[1].lower() not in SUFFIXES:
                listing.complaints.append(f"{os.path.join(folder, os.fsdecode(name))} is no image")
        if not entries:
            listing.complaints.append(f"{folder} has no images in it")
        listing.paths.extend(identity + b"/" + name for name, _ in entries)
        listing.counts.append(len(entries))
    return listing


def _checked(listings: Iterator[_Listing], counts: list[int], complaints: list[str]) -> Iterator[list[bytes]]:
    """The paths of each listing; the rest of it goes into `counts` and `complaints`."""
    for listing in listings:
        counts += listing.counts
        complaints += listing.complaints
        yield listing.paths
