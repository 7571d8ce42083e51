"""Headers of the formats whose pixels lie open, so that a header says how long the file must be: BMP, PNM, TIFF.

Each function returns width and height, and raises ValueError as `image_headers` has it.
"""

import re
import struct
from typing import Any

UNPACKED_BMP = {0, 3, 6}  # neither run lengths nor another format inside
PNM_GAP = rb"(?:\s|#[^\n]*\n)+"
PNM_HEAD = re.compile(rb"P([1-6])" + PNM_GAP + rb"(\d{1,9})" + PNM_GAP + rb"(\d{1,9})(?=\s)")
PNM_DEPTH = re.compile(PNM_GAP + rb"(\d{1,5})(?=\s)")
PNM_HEAD_BYTES = 4096  # comments included
TIFF_WIDTH, TIFF_HEIGHT = 256, 257
TIFF_PLACES = ((273, 279), (324, 325))  # where strips, or tiles, begin, and how long they are
TIFF_NEEDED = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347}
TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
TIFF_KIND_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}


def fields(form: str, encoded: bytes, at: int) -> tuple[Any, ...]:
    """Numbers at a place of a header; the place may lie past the end."""
    if at + struct.calcsize(form) > len(encoded):
        raise ValueError(f"truncated: {len(encoded):,} bytes end inside the header (which goes on at byte {at:,})")
    return struct.unpack_from(form, encoded, at)


def bmp_size(encoded: bytes) -> tuple[int, int]:
    """Width and height of a BMP of either header; negative heights count rows from the top."""
    pixels_at, head_bytes = fields("<II", encoded, 10)
    if head_bytes == 12:
        width, height, bits, packing = (*fields("<HH2xH", encoded, 18), 0)
    else:
        width, height, bits, packing = fields("<ii2xHI", encoded, 18)
    if packing in UNPACKED_BMP:
        row_bytes = (max(width, 0) * bits + 31) // 32 * 4
        _refuse_short("BMP", encoded, pixels_at + row_bytes * abs(height), width, abs(height))
    return width, abs(height)


def pnm_size(encoded: bytes) -> tuple[int, int]:
    """Width and height of a PBM, PGM or PPM, as digits (P1 to P3) or bytes (P4 to P6)."""
    start = encoded[:PNM_HEAD_BYTES]
    head = PNM_HEAD.match(start)
    if head is None:
        raise ValueError("damaged header: PNM, its width and height do not follow")
    kind, width, height = (int(group) for group in head.groups())
    samples, end = width * height * (3 if kind in (3, 6) else 1), head.end()
    if kind in (1, 4):
        data_bytes = samples if kind == 1 else (width + 7) // 8 * height
    else:
        depth = PNM_DEPTH.match(start, end)
        if depth is None:
            raise ValueError("damaged header: PNM, its largest value does not follow")
        end = depth.end()
        data_bytes = 2 * samples - 1 if kind < 4 else samples * (2 if int(depth[1]) > 255 else 1)
    _refuse_short("PNM", encoded, end + 1 + data_bytes, width, height)
    return width, height


def tiff_size(encoded: bytes) -> tuple[int, int]:
    """Width and height of the first picture of a TIFF or BigTIFF whose strips or tiles are all there."""
    order = "<" if encoded[:2] == b"II" else ">"
    is_big = fields(f"{order}H", encoded, 2)[0] == 43
    head, entry = ("Q", "HHQ8s") if is_big else ("H", "HHI4s")
    (at,) = fields(order + ("Q" if is_big else "I"), encoded, 8 if is_big else 4)
    (count,) = fields(order + head, encoded, at)
    at, step = at + struct.calcsize(order + head), struct.calcsize(order + entry)
    _refuse_outside(encoded, at, count * step, "directory")
    contents = {
        tag: (kind, count, _tiff_content(encoded, order, kind, count, content))
        for tag, kind, count, content in struct.iter_unpack(order + entry, encoded[at : at + count * step])
        if tag in TIFF_NEEDED
    }
    values = {
        tag: _tiff_numbers(order, *contents[tag])
        for tag in (TIFF_WIDTH, TIFF_HEIGHT, *TIFF_PLACES[0], *TIFF_PLACES[1])
        if tag in contents
    }
    for starts, sizes in TIFF_PLACES:
        for start, size in zip(values.get(starts, ()), values.get(sizes, ()), strict=False):
            _refuse_outside(encoded, start, size, "strip or tile")
    width, height = (values.get(tag) for tag in (TIFF_WIDTH, TIFF_HEIGHT))
    if not width or not height:
        raise ValueError("damaged header: TIFF, its directory names no width or no height")
    return width[0], height[0]


def _tiff_content(encoded: bytes, order: str, kind: int, count: int, content: bytes) -> bytes:
    """The bytes of one entry, which lie in the entry itself where they fit, elsewhere where not."""
    data_bytes = count * TIFF_KIND_BYTES.get(kind, 0)
    if data_bytes <= len(content):
        return content[:data_bytes]
    (at,) = struct.unpack(order + ("Q" if len(content) == 8 else "I"), content)
    _refuse_outside(encoded, at, data_bytes, "part of its directory")
    return encoded[at : at + data_bytes]


def _tiff_numbers(order: str, kind: int, count: int, content: bytes) -> tuple[int, ...]:
    if kind not in TIFF_NUMBERS:
        raise ValueError(f"damaged header: TIFF, numbers of kind {kind} where lengths are expected")
    return struct.unpack(f"{order}{count}{TIFF_NUMBERS[kind]}", content)


def _refuse_outside(encoded: bytes, start: int, size: int, what: str) -> None:
    if start + size > len(encoded):
        raise ValueError(
            f"truncated: TIFF, a {what} at byte {start:,} reaches {start + size - len(encoded):,} bytes past the end "
            f"of {len(encoded):,}"
        )


def _refuse_short(name: str, encoded: bytes, needed: int, width: int, height: int) -> None:
    if len(encoded) < needed:
        raise ValueError(
            f"truncated: {name}, {len(encoded):,} of the {needed:,} bytes that its header promises "
            f"({width:,} x {height:,} pixels)"
        )
