"""Synthetic people drawn by arithmetic: any number of identities, any number of pictures of each, no download.

They stand in for a face data set where none may be used or shipped: a quick start, a test of a training run from end
to end, a load of any size. An identity has 48 continuous parameters (`faces.Face`), so that millions differ; pictures
of one identity differ in pose, expression, light, background, blur, noise and occlusion (`faces.View`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_pipeline.faces import face_of, view_of
from data_pipeline.portrait import portrait

SMALLEST_SIZE = 16


def identity_image(identity: int, index: int, *, size: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Picture `index` of `identity`, (size, size, 3) RGB: a pure function of its arguments.

    The same (seed, identity, index) at another size shows the same person under the same circumstances. ValueError
    for a negative number and for a size under 16 pixels, where eyes have no pixel left.
    """
    if size < SMALLEST_SIZE:
        raise ValueError(f"a synthetic picture needs a size of at least {SMALLEST_SIZE} pixels, got {size}")
    if min(identity, index, seed) < 0:
        raise ValueError(f"identity, index and seed count from 0, got {identity}, {index} and {seed}")
    return portrait(face_of(seed, identity), view_of(seed, identity, index), size)


def identity_images(identity: int, count: int, *, size: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Pictures 0 .. count - 1 of `identity`, (count, size, size, 3)."""
    return np.stack([identity_image(identity, index, size=size, seed=seed) for index in range(count)])
