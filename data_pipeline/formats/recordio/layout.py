"""What a `.rec` and its `.idx` are made of, as bytes and lines: written at once or in pieces, they come out the same.

The two layouts are described in `recordio`.
"""

import operator
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from data_pipeline.formats.recordio.record_file import (
    FIRST,
    IMAGE_HEAD,
    LAST,
    LONGEST_PAYLOAD_BYTES,
    MAGIC,
    MIDDLE,
    RECORD_HEAD,
    WHOLE,
    payload_parts,
)

LARGEST_EXACT = 2**24  # above it neighbouring integers share one float32


def image_record(label: int, key: int, image: bytes) -> bytes:
    """The record of one encoded image of class `label`, the `key`-th of its file counted from 1, in either layout."""
    label = operator.index(label)
    if not 0 <= label <= LARGEST_EXACT:
        raise ValueError(f"label {label}: RecordIO keeps float32 labels, exact in 0..2**24 ({LARGEST_EXACT}) only")
    if not image:
        raise ValueError(f"image {key} (label {label}) is empty; expected encoded image bytes")
    return _record(IMAGE_HEAD.pack(0, label, key, 0) + image)


def fits_insightface(images: int, identities: int) -> bool:
    """Whether InsightFace's float32 header can hold the numbers of all records."""
    return images + 1 + identities <= LARGEST_EXACT


def identity_records(first_keys: Sequence[int], images: int) -> Iterator[bytes]:
    """What InsightFace's layout adds behind `images` images: a record per identity, whose first image has the key given
    in `first_keys`, and the header, whose key is 0."""
    start = images + 1
    for number, (first, last) in enumerate(pairwise([*first_keys, start])):
        yield _record(IMAGE_HEAD.pack(2, 0.0, start + number, 0) + struct.pack("<2f", first, last))
    yield _record(IMAGE_HEAD.pack(2, 0.0, 0, 1) + struct.pack("<2f", start, start + len(first_keys)))


def index_lines(offsets: Iterable[int], records: int, *, has_header: bool) -> Iterator[str]:
    """The lines of the `.idx` of `records` records: with a header keys run 1..records - 1 and the last record's is 0,
    without one 0..records - 1."""
    for place, offset in enumerate(offsets):
        yield f"{(place + has_header) % records}\t{offset}\n"


def _record(payload: bytes) -> bytes:
    if len(payload) > LONGEST_PAYLOAD_BYTES:
        raise ValueError(f"a record of {len(payload)} bytes; the format ends at {LONGEST_PAYLOAD_BYTES}")
    parts = payload_parts(payload)
    kinds = [WHOLE] if len(parts) == 1 else [FIRST, *[MIDDLE] * (len(parts) - 2), LAST]
    framed = (
        RECORD_HEAD.pack(MAGIC, kind << 29 | len(part)) + part + bytes(-len(part) % 4)
        for kind, part in zip(kinds, parts, strict=True)
    )
    return b"".join(framed)
