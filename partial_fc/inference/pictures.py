"""Encoded pictures as pixels by Pillow: where there is no DALI, or only a few pictures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]


def pixels_of(paths: Sequence[Path], size: int) -> Pixels:
    """RGB pixels ``(n, size, size, 3)``, set upright as their files say, and resized where they have another size.

    ValueError that names the first file that is missing or no picture.
    """
    return np.stack([_pixels(path, size) for path in paths])


def _pixels(path: Path, size: int) -> Pixels:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else f"it is no picture ({error})"
        raise ValueError(f"{path} cannot be embedded: {reason}") from error
    if upright.size != (size, size):
        upright = upright.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(upright)
