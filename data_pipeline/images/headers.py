"""What an encoded image says of itself, read without decoding it: format, width, height, and whether it is all there.

The formats are those that DALI decodes. JPEG and PNG are read here, in 6 to 10 us, and JPEG 2000, whose container may
say another size than its codestream, which Pillow does not see; the others are read by Pillow, in 8 to 80 us. What is
wrong is a ValueError `kind: how it was seen`, such as `truncated: PNG, no IEND chunk in its 418 bytes`; the kinds are
few, to be counted.

A file too small for its pixels is a lie, not a compression: Huffman-coded JPEG spends at least one bit on each block of
64 pixels (ITU-T T.81, F.1.2), deflate turns one byte into 1032 at the most (RFC 1951).
"""

import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from data_pipeline.images.rare_headers import rare_size

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
HUFFMAN_FRAMES = {0xC0, 0xC1, 0xC2}
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
BARE_MARKERS = {0x00, 0x01, *range(0xD0, 0xD9)}  # no length follows
JPEG_END = b"\xff\xd9"
MOST_JPEG_PIXELS_PER_BYTE = 512
MOST_INFLATED_PER_BYTE = 1032
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000: SOC, SIZ
FOREIGN = {
    b"GIF8": "GIF",
    b"<!DOC": "a web page",
    b"<!doc": "a web page",
    b"<html": "a web page",
    b"<svg": "SVG",
    b"<?xml": "XML",
    b"%PDF": "PDF",
    b"PK\x03\x04": "a zip file",
    b"\x1f\x8b": "a gzip file",
    b"\x93NUMPY": "a NumPy array",
}


class ImageHeader(NamedTuple):
    """Format (as Pillow calls it) and size in pixels."""

    format: str
    width: int
    height: int


def image_header(encoded: bytes) -> ImageHeader:
    """The header of an image that looks whole; ValueError `kind: how it was seen` for one that does not."""
    if not encoded:
        raise ValueError("empty: zero bytes")
    for magic, name, size in FORMATS:
        if encoded.startswith(magic) and (name != "WEBP" or encoded[8:12] == b"WEBP"):
            width, height = size(encoded)
            if width < 1 or height < 1:
                raise ValueError(f"damaged header: {name} of {width} x {height} pixels")
            return ImageHeader(name, width, height)
    raise ValueError(f"wrong format: {_foreign(encoded)}; expected JPEG, PNG, BMP, WebP, TIFF, PNM or JPEG 2000")


def _foreign(encoded: bytes) -> str:
    if not any(encoded):
        return f"nothing but {len(encoded):,} zero bytes"
    if encoded[4:8] == b"ftyp":
        return f"the container of AVIF, HEIC or video ({encoded[8:12]!r})"
    known = next((name for magic, name in FOREIGN.items() if encoded.startswith(magic)), None)
    return known or f"it begins with {encoded[:8].hex(' ')}"


def _jpeg(encoded: bytes) -> tuple[int, int]:
    at, frame, (width, height) = 2, 0, (0, 0)
    while True:
        at = encoded.find(b"\xff", at) + 1
        marker = encoded[at] if 0 < at < len(encoded) else -1
        if marker == 0xDA and frame:
            break
        if marker in (-1, 0xD9):
            raise ValueError(f"truncated: JPEG, {len(encoded):,} bytes end before the picture begins (no scan)")
        if marker == 0xDA:
            raise ValueError("damaged header: JPEG, no frame (SOF) before the picture begins")
        if marker == 0xFF or marker in BARE_MARKERS:
            at += marker != 0xFF
            continue
        (length,) = _fields(">H", encoded, at + 1)
        if marker in FRAMES:
            frame, (height, width) = marker, _fields(">HH", encoded, at + 4)
        at += 1 + max(length, 2)
    # Nowhere else in a scan does FF D9 occur, and the thumbnail's own lies before it.
    if encoded.rfind(JPEG_END, at) < 0:
        raise ValueError(f"truncated: JPEG, no end mark (FF D9) in its {len(encoded):,} bytes")
    if frame in HUFFMAN_FRAMES and width * height > MOST_JPEG_PIXELS_PER_BYTE * len(encoded):
        raise ValueError(_lie("JPEG", encoded, width, height))
    return width, height


def _lie(name: str, encoded: bytes, width: int, height: int) -> str:
    return f"false header: {name} of {width:,} x {height:,} pixels, which {len(encoded):,} bytes cannot hold"


def _png(encoded: bytes) -> tuple[int, int]:
    length, kind, width, height, depth, colour = _fields(">I4sIIBB", encoded, 8)
    if (length, kind) != (13, b"IHDR") or colour not in PNG_CHANNELS:
        raise ValueError(f"damaged header: PNG, begins with {length} bytes of {kind!r}, colour type {colour}")
    _check_chunks(encoded)
    row_bytes = 1 + (width * depth * PNG_CHANNELS[colour] + 7) // 8
    if height * row_bytes > MOST_INFLATED_PER_BYTE * len(encoded):
        raise ValueError(_lie("PNG", encoded, width, height))
    return width, height


def _check_chunks(encoded: bytes) -> None:
    """Every chunk up to IEND is there, and those that a decoder needs have the checksum they carry."""
    at, kind, view = 8, b"", memoryview(encoded)
    while kind != b"IEND":
        if at + 12 > len(encoded):
            raise ValueError(f"truncated: PNG, no IEND chunk in its {len(encoded):,} bytes")
        length, kind = struct.unpack_from(">I4s", encoded, at)
        end = at + 8 + length
        if end + 4 > len(encoded):
            raise ValueError(
                f"truncated: PNG, its chunk {kind!r} at byte {at:,} reaches {end + 4 - len(encoded):,} bytes past the "
                f"end of {len(encoded):,}"
            )
        is_needed = not kind[0] & 0x20
        if is_needed and zlib.crc32(view[at + 4 : end]) != struct.unpack_from(">I", encoded, end)[0]:
            raise ValueError(f"damaged: PNG, its chunk {kind!r} at byte {at:,} does not have the checksum it carries")
        at = end + 4


def _jpeg_2000(encoded: bytes) -> tuple[int, int]:
    at = encoded.find(CODESTREAM)
    if at < 0:
        raise ValueError(f"truncated: JPEG 2000, its {len(encoded):,} bytes hold no codestream")
    right, bottom, left, top = _fields(">4I", encoded, at + 8)
    if encoded.rfind(JPEG_END, at) < 0:  # the same mark ends both
        raise ValueError(f"truncated: JPEG 2000, no end mark (FF D9) in its {len(encoded):,} bytes")
    return right - left, bottom - top


def _fields(form: str, encoded: bytes, at: int) -> tuple[Any, ...]:
    """Numbers at a place of a header; the place may lie past the end."""
    if at + struct.calcsize(form) > len(encoded):
        raise ValueError(f"truncated: {len(encoded):,} bytes end inside the header (which goes on at byte {at:,})")
    return struct.unpack_from(form, encoded, at)


FORMATS: list[tuple[bytes, str, Callable[[bytes], tuple[int, int]]]] = [
    (b"\xff\xd8\xff", "JPEG", _jpeg),
    (PNG_MAGIC, "PNG", _png),
    (b"RIFF", "WEBP", partial(rare_size, "WEBP")),
    (b"BM", "BMP", partial(rare_size, "BMP")),
    *((magic, "TIFF", partial(rare_size, "TIFF")) for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((b"P%d" % kind, "PPM", partial(rare_size, "PPM")) for kind in range(1, 7)),
    (CODESTREAM, "JPEG2000", _jpeg_2000),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000", _jpeg_2000),
]
