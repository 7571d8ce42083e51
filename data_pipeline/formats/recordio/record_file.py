"""The records of a `.rec` file, byte by byte: the format (see `recordio`), and the heads of all records at once."""

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.files.byte_file import ByteFile

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
RECORD_HEAD = struct.Struct("<II")  # magic, part << 29 | length
IMAGE_HEAD = struct.Struct("<IfQQ")  # flag, label, id, id2
WHOLE, FIRST, MIDDLE, LAST = range(4)
LONGEST_PAYLOAD_BYTES = 2**29 - 1
SMALLEST_RECORD_BYTES = RECORD_HEAD.size + IMAGE_HEAD.size
IN_PARTS = -1  # as a size: the body must be joined, and starts holds the place of the record
HEADS_AT_A_TIME = 1 << 18  # bounds the temporaries at 10 million records
THREADS = 4  # NumPy reads the heads without the interpreter's lock


@dataclass(frozen=True)
class RecordHeads:
    """What the heads of some records say, one entry each: flag, first label, where the body lies, the record's end."""

    flags: NDArray[np.uint32]
    labels: NDArray[np.float32]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int32]
    ends: NDArray[np.int64]


class RecordFile(ByteFile):
    """An open `.rec`."""

    def joined_parts(self, offset: int) -> bytes:
        """The payload of a record in several parts, with the magic numbers put back between them."""
        return MAGIC_BYTES.join(self.bytes_at(start, length) for start, length in self._parts(offset))

    def end_of_parts(self, offset: int) -> int:
        """The byte behind a record in several parts."""
        *_, (start, length) = self._parts(offset)
        return start + length + -length % 4

    def _parts(self, offset: int) -> Iterator[tuple[int, int]]:
        """Where the payload of each part of a record lies, and its length."""
        kind, at, parts = FIRST, offset, 0
        while kind != LAST:
            magic, word = RECORD_HEAD.unpack(self.bytes_at(at, RECORD_HEAD.size))
            kind, length = word >> 29, word & LONGEST_PAYLOAD_BYTES
            if magic != MAGIC or kind not in ((MIDDLE, LAST) if parts else (FIRST,)):
                raise ValueError(
                    f"{self.path}: the record at byte {offset} is damaged: at byte {at} expected part {parts} of "
                    f"it, found magic {magic:#x}, kind {kind}. Copy the file again"
                )
            yield at + RECORD_HEAD.size, length
            at, parts = at + RECORD_HEAD.size + length + -length % 4, parts + 1

    def heads(self, keys: NDArray[np.int64], offsets: NDArray[np.int64]) -> RecordHeads:
        """The heads of the records at `offsets`; keys are for the messages only.

        Reads about in file order, so that a cold file is read ahead. ValueError for whatever is no record.
        """
        count = keys.size
        heads = RecordHeads(
            flags=np.empty(count, np.uint32),
            labels=np.empty(count, np.float32),
            starts=np.empty(count, np.int64),
            sizes=np.empty(count, np.int32),
            ends=np.empty(count, np.int64),
        )
        self.refuse(offsets + SMALLEST_RECORD_BYTES > self.size_bytes, keys, offsets, "no record fits before its end")
        self.refuse(offsets % 4 != 0, keys, offsets, "records start at multiples of 4")
        in_file_order = np.argsort(offsets, kind="stable")
        # Not closed by hand: an array over it, held by an error's traceback, would turn that error into a BufferError.
        mapped = self.mapped()
        words = np.frombuffer(mapped, "<u4", count=self.size_bytes // 4)

        def fill(first: int) -> None:
            rows = in_file_order[first : first + HEADS_AT_A_TIME]
            self._fill(heads, rows, words, keys[rows], offsets[rows])

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fill, range(0, count, HEADS_AT_A_TIME)))  # raises the first error in file order
        return heads

    def refuse(self, wrong: NDArray[np.bool_], keys: NDArray[np.int64], offsets: NDArray[np.int64], why: str) -> None:
        """Raises ValueError about the first record that is wrong, if any is."""
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(
                f"{self.path} ({self.size_bytes} bytes), key {keys[at]} at byte {offsets[at]}: {why}. "
                f"{np.count_nonzero(wrong)} of {wrong.size} records are so. The .rec is damaged or cut short, or the "
                ".idx belongs to another file: copy both again"
            )

    def _fill(
        self,
        heads: RecordHeads,
        rows: NDArray[np.intp],
        words: NDArray[np.uint32],
        keys: NDArray[np.int64],
        offsets: NDArray[np.int64],
    ) -> None:
        at = offsets // 4
        self.refuse(words[at] != MAGIC, keys, offsets, f"it does not start with the magic number {MAGIC:#x}")
        kinds, lengths = words[at + 1] >> 29, (words[at + 1] & LONGEST_PAYLOAD_BYTES).astype(np.int64)
        self.refuse((kinds != WHOLE) & (kinds != FIRST), keys, offsets, "it is the middle of a record")
        whole = kinds == WHOLE
        ends = offsets + RECORD_HEAD.size + lengths
        self.refuse(whole & (ends > self.size_bytes), keys, offsets, "its length reaches past the end of the file")
        flags = words[at + 2]
        starts = offsets + SMALLEST_RECORD_BYTES + 4 * flags.astype(np.int64)
        self.refuse(whole & (starts > ends), keys, offsets, "its labels do not fit its length")
        label_words = np.where(whole & (flags > 0), at + SMALLEST_RECORD_BYTES // 4, at + 3)
        heads.flags[rows], heads.labels[rows] = flags, words[label_words].view(np.float32)
        heads.starts[rows], heads.sizes[rows], heads.ends[rows] = starts, ends - starts, ends + -ends % 4
        for row in np.flatnonzero(~whole):  # about one per 17 GB
            flag, label, body = label_and_body(self.joined_parts(int(offsets[row])), self.path, int(keys[row]))
            target = rows[row]
            heads.flags[target], heads.labels[target] = flag, label
            heads.starts[target], heads.sizes[target] = offsets[row], IN_PARTS if body else 0
            heads.ends[target] = self.end_of_parts(int(offsets[row]))

    def first_unlisted_image(self, offsets: NDArray[np.int64], ends: NDArray[np.int64]) -> int | None:
        """Where the file has an image between or behind the records that lie at `offsets` to `ends`, if it has one."""
        in_file_order = np.argsort(offsets, kind="stable")
        begins, ends = np.append(offsets[in_file_order], self.size_bytes), np.append(np.int64(0), ends[in_file_order])
        gaps = np.flatnonzero(ends < begins)
        found = (self._first_image(*gap) for gap in zip(ends[gaps].tolist(), begins[gaps].tolist(), strict=True))
        return next((image for image in found if image is not None), None)

    def _first_image(self, at: int, end: int) -> int | None:
        """Where the first record with an image stands from byte `at` on, before `end`, or before what is no record."""
        while at + SMALLEST_RECORD_BYTES <= end:
            magic, word, flag = struct.unpack("<III", self.bytes_at(at, 12))
            length = word & LONGEST_PAYLOAD_BYTES
            if magic != MAGIC:
                return None
            if length > IMAGE_HEAD.size + 4 * flag:
                return at
            at += RECORD_HEAD.size + length + -length % 4
        return None


def label_and_body(payload: bytes, path: Path, key: int) -> tuple[int, float, bytes]:
    """Flag, first label and image bytes of one payload."""
    flag, label = IMAGE_HEAD.unpack_from(payload)[:2] if len(payload) >= IMAGE_HEAD.size else (len(payload), 0.0)
    start = IMAGE_HEAD.size + 4 * flag
    if start > len(payload):
        raise ValueError(f"{path}, key {key}: a payload of {len(payload)} bytes holds no {flag} labels: it is damaged")
    return flag, struct.unpack_from("<f", payload, IMAGE_HEAD.size)[0] if flag else label, payload[start:]


def payload_parts(payload: bytes) -> list[bytes]:
    """The pieces of a payload around each magic number that starts at a multiple of 4; mostly one: all of it."""
    parts, start, found = [], 0, payload.find(MAGIC_BYTES)
    while found >= 0:
        if found % 4 == 0:
            parts.append(payload[start:found])
            start = found + 4
        found = payload.find(MAGIC_BYTES, found + (4 if found % 4 == 0 else 1))
    return [*parts, payload[start:]]
