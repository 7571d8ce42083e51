"""A folder with one folder of images per identity, made into a `.rec` of JPEGs."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from data_pipeline.formats.folders.folder import FolderSource
from data_pipeline.images.jpeg import REFUSALS, check_form, reencoded
from data_pipeline.packing.record_set import Encoded, Identity, write_set


def pack_folder(
    source: Path, out: Path, *, size: int | None = None, quality: int = 95, workers: int | None = None
) -> None:
    """Pack ``source``, which has one folder of images per identity: labels 0, 1, ... in the order of the names.

    Without ``size`` a JPEG keeps its bytes (but is decoded once, so that a damaged one is found now) and any other
    image becomes a JPEG of its own size. With it every image is cropped to its middle square and resized.
    Hidden files are passed over. ValueError naming the places of all folders without images and of all files that are
    no images (see `FolderSource`) or, after all was looked at, of all images that cannot be read: nothing is written
    then.
    """
    check_form(size, quality)
    images = FolderSource(source)
    names = images.identities or ()
    edges = np.searchsorted(images.labels, np.arange(len(names) + 1)).tolist()
    encoded = (partial(_encoded, images, range(first, end), size, quality) for first, end in pairwise(edges))
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        write_set(map(Identity, names, encoded), out, pool, total=len(names))


def _encoded(images: FolderSource, samples: range, size: int | None, quality: int) -> Encoded:
    found = [_jpeg_or_complaint(images, sample, size, quality) for sample in samples]
    return Encoded(
        [each for each in found if isinstance(each, bytes)], [each for each in found if isinstance(each, str)]
    )


def _jpeg_or_complaint(images: FolderSource, sample: int, size: int | None, quality: int) -> bytes | str:
    try:
        return reencoded(images.read(sample).tobytes(), size, quality)
    except REFUSALS as error:
        return f"{images.name(sample)} cannot be read ({error})"
