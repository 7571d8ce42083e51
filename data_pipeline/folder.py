"""A folder with one folder of images per identity."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipeline.image_files import IMAGE_SUFFIXES, FileSource, listed
from data_pipeline.packed_texts import PackedTexts

SCANNING_THREADS = 16  # a network file system answers each question late, but many at a time
FOLDERS_IN_A_TASK = 64
FOLDERS_IN_A_WAVE = 64 * SCANNING_THREADS * FOLDERS_IN_A_TASK  # bounds the Python strings that exist at a time
SUFFIXES = frozenset(map(os.fsencode, IMAGE_SUFFIXES))


class FolderSource(FileSource):
    """The images of `path`, identity after identity: labels 0, 1, ... and images in the order of their names.

    Opening lists every folder, once per process: 25 us for one of five images whose names the machine has in memory,
    more on a network (a list, or records packed once, spare every start that). Hidden files are passed over.
    ValueError, after all was looked at, names folders without images and files that are none; whether an image can be
    decoded is found when it is read.
    """

    def __init__(self, path: Path) -> None:
        path = Path(path)
        identities = _identity_folders(path)
        complaints: list[str] = []
        counts: list[int] = []
        paths = PackedTexts(_checked(_listings(path, identities), counts, complaints))
        if complaints:
            raise ValueError(f"{listed(complaints)}: mend or remove what is named")
        labels = np.repeat(np.arange(len(identities)), counts)
        super().__init__(path, paths, labels, PackedTexts([identities]))


class _Listing(NamedTuple):
    """What some identities' folders hold: paths below the root, how many each, and what is wrong."""

    paths: list[bytes]
    counts: list[int]
    complaints: list[str]


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
