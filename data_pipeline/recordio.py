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
from array import array
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from data_pipeline.record_heads import RecordFile, RecordHeads, label_and_body
from data_pipeline.record_index import index_entries
from data_pipeline.record_layout import LARGEST_EXACT, fits_insightface, identity_records, image_record, index_lines
from data_pipeline.record_scan import scanned_entries


class RecordWriter:
    """A new `.rec` and the `.idx` beside it; both appear under their names when the `with` block ends, or not at all.

    Labels that come grouped (all images of a class in a row) give the InsightFace layout. Labels that do not, or more
    than 2**24 records, whose numbers its float32 header could not hold, give the im2rec layout.
    Raises FileExistsError if either file exists.
    """

    def __init__(self, path_rec: Path) -> None:
        self.path_rec = Path(path_rec)
        self.path_idx = self.path_rec.with_suffix(".idx")
        if self.path_idx == self.path_rec:
            raise ValueError(f"{self.path_rec}: that name belongs to the index; expected one such as train.rec")
        self._refuse_existing()
        self._partial_rec, self._partial_idx = (
            path.with_name(f"{path.name}.{os.getpid()}.partial") for path in (self.path_rec, self.path_idx)
        )
        self._rec: BinaryIO = self._partial_rec.open("wb")
        self._offsets = array("q")
        self._runs: list[tuple[int, int]] = []  # label and first image key of each row of equal labels

    def append(self, label: int, image: bytes) -> None:
        """Writes one encoded image of class `label`, 0 <= label <= 2**24."""
        key = len(self._offsets) + 1
        self._write(image_record(label, key, image))
        if not self._runs or self._runs[-1][0] != label:
            self._runs.append((label, key))

    def close(self) -> None:
        """Completes both files and gives them their names; on any error removes them."""
        try:
            has_header = self._write_identities()
            self._write_index(has_header)
            self._rec.flush()
            os.fsync(self._rec.fileno())
            self._rec.close()
            self._refuse_existing()
            self._partial_rec.rename(self.path_rec)
            self._partial_idx.rename(self.path_idx)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Removes what was written so far."""
        self._rec.close()
        self._partial_rec.unlink(missing_ok=True)
        self._partial_idx.unlink(missing_ok=True)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _refuse_existing(self) -> None:
        for path in (self.path_rec, self.path_idx):
            if path.exists():
                raise FileExistsError(f"{path} exists and is never overwritten: remove it or choose another name")

    def _write_identities(self) -> bool:
        """Writes what the InsightFace layout adds to the images; False, and nothing, where it could not be true."""
        num_images, num_runs = len(self._offsets), len(self._runs)
        if num_images == 0:
            raise ValueError(f"{self.path_rec}: no image was appended; a record file needs at least one")
        is_grouped = len({label for label, _ in self._runs}) == num_runs
        if not is_grouped or not fits_insightface(num_images, num_runs):
            return False
        for record in identity_records([first for _, first in self._runs], num_images):
            self._write(record)
        return True

    def _write_index(self, has_header: bool) -> None:
        with self._partial_idx.open("w", encoding="ascii", newline="\n") as idx:
            idx.writelines(index_lines(self._offsets, len(self._offsets), has_header=has_header))
            idx.flush()
            os.fsync(idx.fileno())

    def _write(self, record: bytes) -> None:
        self._offsets.append(self._rec.tell())
        self._rec.write(record)


class RecordSource:
    """The images of a `.rec` and its `.idx` in the order of their keys, of either layout.

    Opening checks the index and the head of every record (a cold file of small images is read from end to end once)
    and keeps 28 bytes per image; without an `.idx` a scan finds the records first (`record_scan.write_index` spares
    every later start that). Reading is one `pread`: safe from threads and from forked processes; a pickled source opens
    the file anew. Damage is a ValueError that names file, key and place.
    """

    labels: NDArray[np.int64]

    def __init__(self, path_rec: Path) -> None:
        path_rec = Path(path_rec)
        if not path_rec.is_file():
            raise FileNotFoundError(f"{path_rec} is missing; expected a RecordIO file with its .idx beside it")
        self._file = RecordFile(path_rec)
        path_idx = path_rec.with_suffix(".idx")
        has_index = os.path.lexists(path_idx)
        keys, offsets = index_entries(path_idx) if has_index else scanned_entries(self._file)
        heads = self._file.heads(keys, offsets)
        is_image = self._image_mask(keys, offsets, heads)
        if has_index and keys[0] == 0 and not is_image[0] and heads.labels[0] < LARGEST_EXACT:
            self._check_header(float(heads.labels[0]), keys[is_image])
        labels, self._keys = heads.labels[is_image], keys[is_image]
        is_class = (labels >= 0) & (labels <= LARGEST_EXACT) & (labels == np.floor(labels))
        self._file.refuse(~is_class, self._keys, offsets[is_image], "its label is no class, an integer in 0..2**24")
        self.labels = labels.astype(np.int64)
        self._starts, self._sizes = heads.starts[is_image], heads.sizes[is_image]

    @cached_property
    def num_classes(self) -> int:
        """The largest label plus one."""
        return int(self.labels.max()) + 1

    @cached_property
    def num_identities(self) -> int:
        """How many different labels occur."""
        return int(np.count_nonzero(np.bincount(self.labels)))

    def __len__(self) -> int:
        return self.labels.size

    def label(self, sample: int) -> int:
        """The class of one image."""
        return int(self.labels[sample])

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

    def _image_mask(self, keys: NDArray[np.int64], offsets: NDArray[np.int64], heads: RecordHeads) -> NDArray[np.bool_]:
        """True for the records that hold an image; those without are the header and the identities of InsightFace."""
        is_image: NDArray[np.bool_] = heads.sizes != 0
        self._file.refuse(~is_image & (heads.flags != 2), keys, offsets, "it holds no image")
        if not is_image.any():
            raise ValueError(f"{self._file.path}: none of its {keys.size} records holds an image")
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
