"""Encoded images of every format that is read, small and the same every time."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

BLOCKS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
PICTURE = Image.fromarray(BLOCKS.repeat(4, 0).repeat(4, 1))  # 32 wide, 24 high


def encoded(name: str, picture: Image.Image = PICTURE, /, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, name, **options)
    return content.getvalue()


FORMATS: dict[str, tuple[str, bytes]] = {  # what it is, and what its header must say it is
    "JPEG": ("JPEG", encoded("JPEG")),
    "progressive JPEG": ("JPEG", encoded("JPEG", progressive=True)),
    "grey JPEG": ("JPEG", encoded("JPEG", PICTURE.convert("L"))),
    "CMYK JPEG": ("JPEG", encoded("JPEG", PICTURE.convert("CMYK"))),
    "PNG": ("PNG", encoded("PNG")),
    "palette PNG": ("PNG", encoded("PNG", PICTURE.convert("P"))),
    "two-colour PNG": ("PNG", encoded("PNG", PICTURE.convert("1"))),
    "transparent PNG": ("PNG", encoded("PNG", PICTURE.convert("RGBA"))),
    "16-bit PNG": ("PNG", encoded("PNG", PICTURE.convert("I;16"))),
    "WebP": ("WEBP", encoded("WEBP")),
    "lossless WebP": ("WEBP", encoded("WEBP", lossless=True)),
    "transparent WebP": ("WEBP", encoded("WEBP", Image.merge("RGBA", (*PICTURE.split(), PICTURE.getchannel(0))))),
    "BMP": ("BMP", encoded("BMP")),
    "palette BMP": ("BMP", encoded("BMP", PICTURE.convert("P"))),
    "TIFF": ("TIFF", encoded("TIFF")),
    "LZW TIFF": ("TIFF", encoded("TIFF", compression="tiff_lzw")),
    "JPEG TIFF": ("TIFF", encoded("TIFF", compression="jpeg")),
    "BigTIFF": ("TIFF", encoded("TIFF", big_tiff=True)),
    "PPM": ("PPM", encoded("PPM")),
    "PGM": ("PPM", encoded("PPM", PICTURE.convert("L"))),
    "PBM": ("PPM", encoded("PPM", PICTURE.convert("1"))),
    "PPM in digits": ("PPM", b"P3 # a comment\n32 24\n255\n" + b"7 " * (32 * 24 * 3)),
    "JPEG 2000": ("JPEG2000", encoded("JPEG2000")),
    "JPEG 2000 codestream": ("JPEG2000", encoded("JPEG2000", no_jp2=True)),
}
