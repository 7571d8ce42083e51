"""Sizes of BMP, PNM, TIFF and WebP images, as Pillow reads them without decoding, and where their bytes must end.

Pillow's plugins are called by themselves: `Image.open` would judge decoder bombs by a bound of its own.
"""

import io
from collections.abc import Callable
from typing import Any

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

TIFF_PLACES = ((273, 279), (324, 325))  # tags of where strips, or tiles, begin, and of how long they are
BITS_PER_SAMPLE = 258
PNM_DIGITS = (b"P1", b"P2", b"P3")


def rare_size(name: str, encoded: bytes) -> tuple[int, int]:
    """Width and height of an image of one of `PLUGINS`; ValueError as `headers.image_header` has it."""
    plugin, outline_end = PLUGINS[name]
    if name == "WEBP":  # before Pillow, which says of a short one only that it cannot be opened
        _refuse_short(name, encoded, 8 + int.from_bytes(encoded[4:8], "little"))
    try:
        with plugin(_Whole(encoded), "") as image:
            size, end = image.size, outline_end(image, encoded)
    except _UnfitError as error:
        raise ValueError(f"wrong format: {error}, which DALI does not decode to pixels of 0 to 255") from error
    except _PastEndError as error:
        raise ValueError(f"truncated: {name}, its header {error}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"too many pixels: {name}, {error}") from error
    except Exception as error:  # the plugins raise whatever comes up
        raise ValueError(f"damaged header: {name}, {' '.join(str(error).split()) or type(error).__name__}") from error
    _refuse_short(name, encoded, end)
    return size


class _PastEndError(Exception):
    pass


class _UnfitError(Exception):
    """An image that DALI decodes to other pixels than were meant, or refuses so that its process may crash."""


class _Whole(io.BytesIO):
    """Bytes that are not read past their end, where Pillow would warn and leave out a part of the header."""

    def read(self, size: int | None = -1) -> bytes:
        start, content = self.tell(), super().read(size)
        if size is not None and len(content) < size:
            raise _PastEndError(f"has {size:,} bytes at byte {start:,}, past the end of {len(self.getbuffer()):,}")
        return content


def _refuse_short(name: str, encoded: bytes, end: int) -> None:
    if len(encoded) < end:
        raise ValueError(f"truncated: {name}, {len(encoded):,} of the {end:,} bytes that its header promises")


def _bmp_end(image: Any, encoded: bytes) -> Any:
    codec, _, start, arguments = image.tile[0]
    return start + arguments[1] * image.height if codec == "raw" else start  # a row's bytes; unknown of run lengths


def _pnm_end(image: Any, encoded: bytes) -> Any:
    codec, _, start, arguments = image.tile[0]
    if codec.startswith("ppm") and arguments[1] not in (255, 65535):
        raise _UnfitError(f"PNM of {arguments[1] + 1:,} levels")
    samples = image.width * image.height * len(image.getbands())
    if encoded.startswith(b"P4"):
        return start + (image.width + 7) // 8 * image.height
    if encoded.startswith(PNM_DIGITS):
        return start + (samples if image.mode == "1" else 2 * samples - 1)  # a digit each, and a blank between
    is_deep = image.mode == "I" or (codec == "ppm" and arguments[1] > 255)
    return start + samples * (2 if is_deep else 1)


def _tiff_end(image: Any, encoded: bytes) -> Any:
    tags = image.tag_v2
    if image.mode in ("F", "I"):
        raise _UnfitError(f"TIFF of {'floating-point' if image.mode == 'F' else '32-bit'} numbers")
    if BITS_PER_SAMPLE not in tags:
        raise _UnfitError("TIFF without BitsPerSample, as two-colour ones may be")
    starts, sizes = next(places for places in TIFF_PLACES if places[0] in tags)
    return max(start + size for start, size in zip(tags[starts], tags[sizes], strict=True))


PLUGINS: dict[str, tuple[type[ImageFile], Callable[[Any, bytes], Any]]] = {
    "BMP": (BmpImageFile, _bmp_end),
    "PPM": (PpmImageFile, _pnm_end),
    "TIFF": (TiffImageFile, _tiff_end),
    "WEBP": (WebPImageFile, lambda image, encoded: 0),
}
