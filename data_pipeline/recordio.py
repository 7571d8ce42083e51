"""RecordIO files (`.rec` with its `.idx`), written and read without MXNet.

A file is a row of records, all integers little endian:

    record  = u32 0xced7230a | u32 (part << 29 | length) | payload[length] | zeros to a multiple of 4
    part    = 0 whole, 1 first, 2 middle, 3 last
    payload = u32 flag, f32 label, u64 id, u64 id2 | flag x f32 labels | image bytes

A payload that holds the magic number at a multiple of 4 is cut there into parts; the reader puts the magic back between
them. The index holds one line `key <tab> offset` per record. Two layouts are in use:

    InsightFace  images 1..n; identities n+1..n+ids, no image, labels [first, last) image key; key 0, no image,
                 labels [n+1, n+1+ids]. Class of an image = its label, or the first of its labels.
    im2rec       images 0..n-1, nothing else.

Labels are float32, so integers are exact up to 2**24 only: larger labels are refused, larger counts not trusted.
"""

import mmap
import operator
import os
import struct
from array import array
import weakref
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.record_index import index_entries

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
RECORD_HEAD = struct.Struct("<II")
IMAGE_HEAD = struct.Struct("<IfQQ")
LARGEST_EXACT = 2**24  # of float32: above it neighbouring integers share one value
LONGEST_PAYLOAD_BYTES = 2**29 - 1
HEADS_AT_A_TIME = 1 << 20  # looked at when a file is opened: bounds the temporaries at 10 million records


class RecordWriter:
    """A new `.rec` and, beside it, its `.idx`; both appear under their names when the `with` block ends, or not at all.

    Labels that come grouped (all images of a class in a row) give the InsightFace layout. Labels that do not, or more
    than 2**24 records, of which float32 cannot count, give the im2rec layout: that header could not be true.
    Raises FileExistsError if either file exists.
    """

    def __init__(self, path_rec: Path) -> None:
        self.path_rec = Path(path_rec)
        self.path_idx = self.path_rec.with_suffix(".idx")
        if self.path_idx == self.path_rec:
            raise ValueError(f"{self.path_rec}: that name belongs to the index; expected one such as train.rec")
        self._refuse_existing()
        self._parts = [p.with_name(f"{p.name}.{os.getpid()}.partial") for p in (self.path_rec, self.path_idx)]
        self._rec: BinaryIO = self._parts[0].open("wb")
        self._offsets = array("q")
        self._runs: list[tuple[int, int]] = []  # (label, key of its first image) of each row of equal labels

    def append(self, label: int, image: bytes) -> None:
        """Writes one encoded image of class `label`, 0 <= label <= 2**24."""
        label = operator.index(label)
        if not 0 <= label <= LARGEST_EXACT:
            raise ValueError(f"label {label}: RecordIO keeps labels as float32, exact for 0..2**24 ({LARGEST_EXACT}) only")
        if not image:
            raise ValueError(f"image {len(self._offsets)} (label {label}) is empty: expected encoded image bytes")
        if not self._runs or self._runs[-1][0] != label:
            self._runs.append((label, len(self._offsets) + 1))
        self._write(IMAGE_HEAD.pack(0, label, len(self._offsets) + 1, 0) + image)

    def close(self) -> None:
        """Completes both files and gives them their names."""
        try:
            self._complete()
        except BaseException:
            self.discard()
            raise

    def _complete(self) -> None:
        num_images = len(self._offsets)
        if num_images == 0:
            raise ValueError(f"{self.path_rec}: no image was appended; a record file needs at least one")
        first_key = 1 if self._is_insightface() else 0
        if first_key:
            self._write_identities(num_images)
        keys = [*range(first_key, first_key + len(self._offsets) - first_key), *range(first_key)]  # key 0 lies last
        with self._parts[1].open("w", encoding="ascii", newline="\n") as idx:
            idx.writelines(f"{key}\t{offset}\n" for key, offset in zip(keys, self._offsets, strict=True))
            idx.flush()
            os.fsync(idx.fileno())
        self._rec.flush()
        os.fsync(self._rec.fileno())
        self._rec.close()
        self._refuse_existing()
        for part, path in zip(self._parts, (self.path_rec, self.path_idx), strict=True):
            part.rename(path)

    def discard(self) -> None:
        """Removes what was written so far."""
        self._rec.close()
        for part in self._parts:
            part.unlink(missing_ok=True)

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
                raise FileExistsError(f"{path} exists and is not overwritten: remove it or choose another name")

    def _is_insightface(self) -> bool:
        grouped = len({label for label, _ in self._runs}) == len(self._runs)
        return grouped and len(self._offsets) + 1 + len(self._runs) <= LARGEST_EXACT

    def _write_identities(self, num_images: int) -> None:
        edges = [*(first for _, first in self._runs), num_images + 1]
        for first, last in zip(edges, edges[1:], strict=False):
            self._write(IMAGE_HEAD.pack(2, 0.0, len(self._offsets) + 1, 0) + struct.pack("<2f", first, last))
        counts = struct.pack("<2f", num_images + 1, num_images + 1 + len(self._runs))
        self._write(IMAGE_HEAD.pack(2, 0.0, 0, 1) + counts)

    def _write(self, payload: bytes) -> None:
        if len(payload) > LONGEST_PAYLOAD_BYTES:
            raise ValueError(f"a record of {len(payload)} bytes: the format ends at {LONGEST_PAYLOAD_BYTES}")
        self._offsets.append(self._rec.tell())
        parts = _parts_between_magics(payload)
        for number, part in enumerate(parts):
            kind = 0 if len(parts) == 1 else 1 if number == 0 else 3 if number == len(parts) - 1 else 2
            self._rec.write(RECORD_HEAD.pack(MAGIC, kind << 29 | len(part)) + part + bytes(-len(part) % 4))


def _parts_between_magics(payload: bytes) -> list[bytes]:
    """The pieces of a payload around each magic number that starts at a multiple of 4; mostly one: all of it."""
    parts, start, found = [], 0, payload.find(MAGIC_BYTES)
    while found >= 0:
        if found % 4 == 0:
            parts.append(payload[start:found])
            start = found + 4
        found = payload.find(MAGIC_BYTES, found + (4 if found % 4 == 0 else 1))
    return [*parts, payload[start:]]


class RecordSource:
    """The images of a `.rec` and its `.idx` in key order, of either layout, told apart by what the records hold.

    Opening checks the index and the head of every record (NumPy over a memory map, in file order; a cold file is read
    from end to end once if its images are smaller than the read-ahead) and keeps 28 bytes per image. Reading is one
    `pread`, which moves no file position: safe from threads and forked processes; a pickled source opens the file anew.
    Damage is a ValueError with file, key and offset.
    """

    def __init__(self, path_rec: Path) -> None:
        self.path_rec = Path(path_rec)
        if not self.path_rec.is_file():
            raise FileNotFoundError(f"{self.path_rec} is missing: expected a RecordIO file with its .idx beside it")
        keys, offsets = index_entries(self.path_rec.with_suffix(".idx"))
        self._open()
        heads = self._heads(keys, offsets)
        is_image = self._image_mask(keys, offsets, heads)
        labels = heads.labels[is_image]
        fits = (labels >= 0) & (labels <= LARGEST_EXACT) & (labels == np.floor(labels))
        self._refuse(~fits, keys[is_image], offsets[is_image], f"its label is no integer in 0..2**24 ({LARGEST_EXACT})")
        self.labels: NDArray[np.int64] = labels.astype(np.int64)
        self._keys, self._starts, self._sizes = keys[is_image], heads.starts[is_image], heads.sizes[is_image]

    def __len__(self) -> int:
        return self.labels.size

    def label(self, sample: int) -> int:
        """The class of one image."""
        return int(self.labels[sample])

    def read(self, sample: int) -> NDArray[np.uint8]:
        """The encoded bytes of one image, read-only."""
        start, size = int(self._starts[sample]), int(self._sizes[sample])
        body = self._bytes(start, size) if size >= 0 else _label_and_body(self._joined_parts(start))[1]
        return np.frombuffer(body, np.uint8)

    def name(self, sample: int) -> str:
        """The file and the key of one image's record."""
        return f"{self.path_rec} key {self._keys[sample]}"

    @cached_property
    def num_classes(self) -> int:
        """The largest label plus one."""
        return int(self.labels.max()) + 1

    @cached_property
    def num_identities(self) -> int:
        """How many different labels occur."""
        return int(np.count_nonzero(np.bincount(self.labels)))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_fd"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self.path_rec, os.O_RDONLY)
        weakref.finalize(self, os.close, self._fd)

    def _bytes(self, offset: int, size: int) -> bytes:
        found = os.pread(self._fd, size, offset)
        if len(found) != size:
            raise ValueError(f"{self.path_rec}: {len(found)} of {size} bytes at {offset}: the file has been cut short")
        return found

    def _joined_parts(self, offset: int) -> bytes:
        """The payload of a record in several parts."""
        parts: list[bytes] = []
        kind, at = 1, offset
        while kind != 3:
            magic, word = RECORD_HEAD.unpack(self._bytes(at, RECORD_HEAD.size))
            kind, length = word >> 29, word & LONGEST_PAYLOAD_BYTES
            if magic != MAGIC or kind not in ((2, 3) if parts else (1,)):
                raise ValueError(
                    f"{self.path_rec}: the record at byte {offset} is damaged: part {len(parts)} at byte {at} "
                    f"starts with {magic:#x} and kind {kind}. Copy the file again"
                )
            parts.append(self._bytes(at + RECORD_HEAD.size, length))
            at += RECORD_HEAD.size + length + -length % 4
        return MAGIC_BYTES.join(parts)

    def _heads(self, keys: NDArray[np.int64], offsets: NDArray[np.int64]) -> "_Heads":
        """What the head of every record says, in the order of the keys."""
        count = keys.size
        heads = _Heads(np.empty(count, np.uint32), np.empty(count, np.float32), np.empty(count, np.int64),
                       np.empty(count, np.int32))
        in_file_order = np.argsort(offsets, kind="stable")
        with mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ) as mapped:
            for first in range(0, count, HEADS_AT_A_TIME):
                rows = in_file_order[first : first + HEADS_AT_A_TIME]
                self._look_at_heads(mapped, keys[rows], offsets[rows], rows, heads)
        return heads
