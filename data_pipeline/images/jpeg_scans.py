"""Whether all of a JPEG's picture is there.

Decoders fill what a scan lacks with grey and go on: libjpeg warns, and no library in use here hands its warning on. Two
tests find such files without a second decode. The scans together must bring every coefficient of every component to
its last bit (ITU-T T.81, G.1): a progressive file that was cut lacks scans. And a decoder that is given the one scan of
a sequential file, without the end mark and with no byte after it, must not ask for more.
"""

import re
import struct
from collections.abc import Iterator
from itertools import chain

SCAN, END = 0xDA, 0xD9
SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1), 0xC2  # frames of Huffman codes
MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # all but those that stand in a scan or have no length
COEFFICIENTS = 64  # of a block
# A decoder looks up to 8 bytes ahead. Ones, which also fill the last byte of a scan, begin no code (T.81, C.2).
PADDING = b"\xff\x00" * 8


class HalfPictureError(ValueError):
    """A part of the picture is not in the file; `half a picture: how it was seen`."""


def strict_jpeg(encoded: bytes) -> bytes:
    """A JPEG in such bytes that Pillow refuses it as truncated where its scan ends early.

    HalfPictureError where scans are missing. `encoded` has the outline of a JPEG (see `headers`).
    """
    segments = list(_segments(encoded))
    frames = [(kind, body[6::3]) for kind, _, body in segments if kind in (*SEQUENTIAL, PROGRESSIVE)]
    frame, components = frames[0] if frames else (0, b"")
    scans = [body for kind, _, body in segments if kind == SCAN]
    if frame in SEQUENTIAL and [scan[0] for scan in scans] == [len(components)]:
        _, end, _ = segments[-1]
        return encoded[:end] + PADDING
    if not _are_complete(components, scans):
        raise HalfPictureError(f"half a picture: JPEG, its {len(scans)} scans do not bring all coefficients")
    return encoded


def _segments(encoded: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The marker of each segment up to the end mark, where the marker stands, and what is in the segment."""
    at = 2
    while (match := MARKER.search(encoded, at)) is not None:
        marker = match[1][0]
        if marker == END:
            yield marker, match.start(), b""
            return
        (length,) = struct.unpack_from(">H", encoded, match.end())
        at = match.end() + max(length, 2)  # of a damaged length too
        yield marker, match.start(), encoded[match.end() + 2 : at]


def _are_complete(components: bytes, scans: list[bytes]) -> bool:
    """Whether the scans bring all coefficients of all components to the last bit."""
    bits_left_out = {component: [1] * COEFFICIENTS for component in components}
    for scan in scans:  # the number of components, two bytes for each, first and last coefficient, bits
        first, last, bits = scan[-3], scan[-2], scan[-1] & 15
        for component in bits_left_out.keys() & set(scan[1:-3:2]):
            bits_left_out[component][first : last + 1] = [bits] * (last + 1 - first)
    return not any(chain.from_iterable(bits_left_out.values()))
