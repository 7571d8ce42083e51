"""Whether two files show one and the same picture, whatever size and encoding they have."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from data_pipeline.images.checks import decoding_problem

SIDE = 12  # pixels: both pictures are made as small as that
MOST_DIFFERENT = 0.15  # of the contrast. Copies of half the size, or at JPEG quality 50, differ by less than 0.14


def is_same_picture(first: bytes, second: bytes) -> bool:
    """Whether the two, made small and grey, differ by less than 15 % of their contrast; False if one is none.

    The difference is the root of the mean square over all pixels; the contrast is the standard deviation of the pixels
    of the paler picture.
    """
    if first == second:
        return True
    one, other = _small(first), _small(second)
    if one is None or other is None:
        return False
    contrast = min(float(one.std()), float(other.std()))
    return float(np.sqrt(((one - other) ** 2).mean())) < MOST_DIFFERENT * contrast


@lru_cache(maxsize=1024)
def _small(encoded: bytes) -> NDArray[np.float64] | None:
    if decoding_problem(encoded) is not None:
        return None
    with Image.open(io.BytesIO(encoded)) as image:
        upright = ImageOps.exif_transpose(image).convert("L")
    return np.asarray(upright.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float64)
