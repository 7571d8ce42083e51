"""RecordIO files (`.rec` with its `.idx`), written and read without MXNet.

A file is a row of records, all numbers little endian:

    record  = u32 0xced7230a | u32 (part << 29 | length) | payload[length] | zeros to a multiple of 4
    part    = 0 whole, 1 first, 2 middle, 3 last
    payload = u32 flag, f32 label, u64 id, u64 id2 | flag x f32 labels | image bytes

A payload that holds the magic number at a multiple of 4 is cut there into parts; the reader puts the magic back between
them. The index holds a line `key <tab> offset` per record. Two layouts are in use:

    InsightFace  images 1..n; identities n+1..n+ids, no image, labels [first, last) image key; key 0, no image,
                 labels [n+1, n+1+ids]. The class of an image is its label, or the first of its labels.
    im2rec       images 0..n-1, nothing else.

Labels are float32, which counts exactly to 2**24 only: larger labels are refused, larger counts not trusted.
"""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.formats.recordio.index import index_entries
from data_pipeline.formats.recordio.layout import (
    LARGEST_EXACT,
)
from data_pipeline.formats.recordio.record_file import RecordFile, RecordHeads, label_and_body
from data_pipeline.formats.recordio.scan import scanned_entries
from data_pipeline.source import Source

MOST_LABELS = 2  # of an image: InsightFace's older sets have a second number behind the class


class RecordSource(Source):
    """The images of a `.rec` and its `.idx` in the order of their keys, of either layout.

    Opening checks the index and the head of every record (a cold file of small images is read from end to end once)
    and keeps 28 bytes per image; without an `.idx` a scan finds the records first (`scan.write_index` spares
    every later start that). Reading is one `pread`: safe from threads and from forked processes; a pickled source opens
    the file anew. Damage is a ValueError that names file, key and place.
    """

    def __init__(self, path_rec: Path) -> None:
        path_rec = Path(path_rec)
        if not path_rec.is_file():
            raise FileNotFoundError(f"{path_rec} is missing; expected a RecordIO file with its .idx beside it")
        self._file, self.files = RecordFile(path_rec), (path_rec,)
        path_idx = path_rec.with_suffix(".idx")
        has_index = os.path.lexists(path_idx)
        keys, offsets = index_entries(path_idx) if has_index else scanned_entries(self._file)
        heads = self._file.heads(keys, offsets)
        is_image = self._image_mask(keys, heads)
        if has_index and keys[0] == 0 and not is_image[0] and heads.labels[0] < LARGEST_EXACT:
            self._check_header(float(heads.labels[0]), keys[is_image])
        if has_index:
            self.left_out = self._left_out(offsets, heads.ends)
        labels, self._keys = heads.labels[is_image], keys[is_image]
        is_class = (labels >= 0) & (labels <= LARGEST_EXACT) & (labels == np.floor(labels))
        self._file.refuse(~is_class, self._keys, offsets[is_image], "its label is no class, an integer in 0..2**24")
        self.labels = labels.astype(np.int64)
        self._starts, self._sizes = heads.starts[is_image], heads.sizes[is_image]

    @cached_property
    def num_identities(self) -> int:
        """How many different labels occur."""
        return int(np.count_nonzero(np.bincount(self.labels)))

    def read(self, sample: int) -> NDArray[np.uint8]:
        """The encoded bytes of one image, read-only."""
        start, size = int(self._starts[sample]), int(self._sizes[sample])
        if size >= 0:
            return np.frombuffer(self._file.bytes_at(start, size), np.uint8)
        payload = self._file.joined_parts(start)
        return np.frombuffer(label_and_body(payload, self._file.path, int(self._keys[sample]))[2], np.uint8)

    def prefetch(self, samples: NDArray[np.int64]) -> None:
        """Has the system read these images into its cache; one in several parts is read when it is asked for."""
        for start, size in zip(self._starts[samples].tolist(), self._sizes[samples].tolist(), strict=True):
            self._file.prefetch(start, size)

    def name(self, sample: int) -> str:
        """The file and the key of one image's record."""
        return f"{self._file.path} key {self._keys[sample]}"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_file": self._file.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._file = RecordFile(state["_file"])

    def _left_out(self, offsets: NDArray[np.int64], ends: NDArray[np.int64]) -> Sequence[str]:
        """Says which images the index does not list; ValueError where it ends before the file does."""
        image = self._file.first_unlisted_image(offsets, ends)
        if image is None:
            return ()
        if image > offsets.max():
            raise ValueError(
                f"{self._file.path}: its index lists {offsets.size:,} records, and not the image at byte {image:,} "
                f"behind them, of {self._file.size_bytes:,}: copy the .idx again, or remove it, as without one every "
                "record is found by a scan"
            )
        return (f"{self._file.path} has images that its index does not list, the first at byte {image:,}",)

    def _image_mask(self, keys: NDArray[np.int64], heads: RecordHeads) -> NDArray[np.bool_]:
        """True for all records but InsightFace's header and identities; an image of no bytes is damage of that one."""
        if not heads.sizes.any():
            raise ValueError(f"{self._file.path}: none of its {keys.size} records holds an image")
        is_image: NDArray[np.bool_] = (heads.sizes != 0) | (heads.flags != 2)
        if (several := is_image & (heads.flags > MOST_LABELS)).any():
            at = int(several.argmax())
            raise ValueError(
                f"{self._file.path}: labels are arrays of {heads.flags[at]} numbers, as for detection, in "
                f"{np.count_nonzero(several):,} of {keys.size:,} records, first of key {keys[at]}: nothing says which "
                "of them is the class. Pack the images again with one number each"
            )
        return is_image

    def _check_header(self, end: float, image_keys: NDArray[np.int64]) -> None:
        last = int(max(end, 1)) - 1  # a damaged one may promise minus infinity
        is_promised = (image_keys >= 1) & (image_keys <= last)
        extra, found = image_keys[~is_promised], image_keys[is_promised]
        if extra.size or found.size < last:
            # The first three gaps come early, whatever number a damaged header promises.
            missing = np.setdiff1d(np.arange(1, min(last, found.size + 3) + 1), found)
            raise ValueError(
                f"{self._file.path}: its header (key 0) promises images 1 to {end:g} - 1, the index lists "
                f"{image_keys.size}; missing keys {missing[:3].tolist()}, unexpected {extra[:3].tolist()}: "
                "copy .rec and .idx again, or take key 0 out of the index to read what is listed"
            )
