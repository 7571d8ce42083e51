"""Sets of images made into ``train.rec`` + ``train.idx``: from a folder, from Omniglot's zips, from arithmetic."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from data_pipeline.complaints import listed
from data_pipeline.formats.folders.file_source import IMAGE_SUFFIXES
from data_pipeline.images.jpeg import REFUSALS, check_form, reencoded
from data_pipeline.packing.record_set import Encoded, Identity, write_set


def pack_folder(
    source: Path, out: Path, *, size: int | None = None, quality: int = 95, workers: int | None = None
) -> None:
    """Pack ``source``, which has one folder of images per identity: labels 0, 1, ... in the order of the names.

    Without ``size`` a JPEG keeps its bytes (but is decoded once, so that a damaged one is found now) and any other
    image becomes a JPEG of its own size. With it every image is cropped to its middle square and resized.
    Hidden files are passed over. ValueError naming the places, after all was looked at, for images that cannot be read,
    folders without images, and files that are neither: nothing is written then.
    """
    check_form(size, quality)
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is not a folder: expected one with a folder of images per identity")
    entries = sorted((entry for entry in os.scandir(source) if not entry.name.startswith(".")), key=lambda e: e.name)
    if stray := [entry.path for entry in entries if not entry.is_dir()]:
        raise ValueError(f"{listed(stray)}: expected folders only, one per identity; move files into theirs, or away")
    if not entries:
        raise ValueError(f"{source} has no folders in it: expected one folder of images per identity")
    identities = (Identity(e.name, partial(_folder, Path(e.path), size, quality)) for e in entries)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        write_set(identities, out, pool, total=len(entries))


def _folder(folder: Path, size: int | None, quality: int) -> Encoded:
    encoded = Encoded([], [])
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if path.is_dir() or path.suffix.lower() not in IMAGE_SUFFIXES:
            encoded.complaints.append(f"{path} is no image")
            continue
        try:
            encoded.images.append(reencoded(path.read_bytes(), size, quality))
        except REFUSALS as error:
            encoded.complaints.append(f"{path} cannot be read ({error})")
    if not encoded.images and not encoded.complaints:
        encoded.complaints.append(f"{folder} has no images in it")
    return encoded
