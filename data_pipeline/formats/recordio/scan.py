"""The index of a `.rec` that has none, rebuilt from the file itself.

Records are found by following their lengths from the first byte, never by looking for the magic number, which images
may hold. A file that is damaged somewhere has no index after that place, so it is refused: an index of what came before
would train on a part of the data and say nothing.
"""

from array import array
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.files.whole_file import WholeFile, refuse_existing
from data_pipeline.formats.recordio.record_file import (
    FIRST,
    IMAGE_HEAD,
    LAST,
    LONGEST_PAYLOAD_BYTES,
    MAGIC,
    MIDDLE,
    RECORD_HEAD,
    SMALLEST_RECORD_BYTES,
    WHOLE,
    RecordFile,
)

KINDS = {WHOLE: "a whole record", FIRST: "a first part", MIDDLE: "a middle part", LAST: "a last part"}
LINES_AT_A_TIME = 1 << 16


def scanned_entries(file: RecordFile) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys, ascending, and the byte offsets of all records of a file, as `index_entries` gives them from an `.idx`.

    A key is the id in the record's own head, which is what the writers in use put there, so that the images come in
    the order that the lost index gave them. Where ids repeat, keys are 0, 1, ... in the order of the file. Reads the
    heads only, 0.5 us each when they are in memory; a cold file of small images is read from end to end. ValueError
    names the byte where records stop being records.
    """
    offsets = _followed(file)
    keys = _ids(file, offsets)
    order = np.argsort(keys, kind="stable")
    if (np.diff(keys[order]) <= 0).any():
        return np.arange(offsets.size), offsets
    return keys[order], offsets[order]


def write_index(path_rec: Path) -> Path:
    """The `.idx` written beside a `.rec` that has none; FileExistsError if it has one.

    Appears whole or not at all; where several processes write it at once, one wins and all are content.
    """
    path_idx = path_rec.with_suffix(".idx")
    refuse_existing(path_idx)
    entries = np.stack(scanned_entries(RecordFile(path_rec)), axis=1)
    with WholeFile(path_idx) as file:
        for first in range(0, len(entries), LINES_AT_A_TIME):
            rows = entries[first : first + LINES_AT_A_TIME].tolist()
            file.writelines(b"%d\t%d\n" % (key, offset) for key, offset in rows)
    return path_idx


def _followed(file: RecordFile) -> NDArray[np.int64]:
    """The offsets of all records in the order of the file."""
    if not file.size_bytes:
        raise ValueError(f"{file.path} is empty; expected RecordIO records")
    offsets, at, in_parts, size_bytes = array("q"), 0, False, file.size_bytes
    unpack, head_bytes = RECORD_HEAD.unpack_from, RECORD_HEAD.size
    with file.mapped() as mapped:
        while at + head_bytes <= size_bytes:
            magic, word = unpack(mapped, at)
            kind = word >> 29
            if magic != MAGIC or kind not in ((MIDDLE, LAST) if in_parts else (WHOLE, FIRST)):
                raise _damage(file, offsets, at, f"magic {magic:#x}, {KINDS.get(kind, f'kind {kind}')}", in_parts)
            end = at + head_bytes + (word & LONGEST_PAYLOAD_BYTES)
            if end > size_bytes:
                raise _damage(file, offsets, at, f"one that says it ends at byte {end}, past the end", in_parts)
            if not in_parts:
                offsets.append(at)
            in_parts = kind in (FIRST, MIDDLE)
            at = end + -end % 4
    if in_parts or at < size_bytes:
        raise _damage(file, offsets, at, f"the end of the file, byte {size_bytes}", in_parts)
    return np.frombuffer(offsets, np.int64)


def _ids(file: RecordFile, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The id that each record's head states."""
    too_short = "it is too short to hold an image's head"
    file.refuse(offsets + SMALLEST_RECORD_BYTES > file.size_bytes, np.arange(offsets.size), offsets, too_short)
    mapped = file.mapped()
    words, at = np.frombuffer(mapped, "<u4", count=file.size_bytes // 4), offsets // 4
    ids = words[at + 4].astype(np.int64) | words[at + 5].astype(np.int64) << 32
    for place in np.flatnonzero(words[at + 1] >> 29 != WHOLE):  # the magic number may have stood in the head itself
        payload = file.joined_parts(int(offsets[place]))
        if len(payload) >= IMAGE_HEAD.size:
            ids[place] = np.array(IMAGE_HEAD.unpack_from(payload)[2], np.uint64).astype(np.int64)
    return ids


def _damage(file: RecordFile, offsets: "array[int]", at: int, found: str, in_parts: bool) -> ValueError:
    expected = "the next part of the record before" if in_parts else "a record"
    return ValueError(
        f"{file.path} ({file.size_bytes} bytes): at byte {at}, behind {len(offsets) - in_parts} whole records, "
        f"expected {expected}, found {found}. The file is damaged or cut short: copy it again"
    )
