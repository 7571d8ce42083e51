"""Synthetic people drawn by arithmetic: any number of identities, any number of pictures of each, no download.

They stand in for a face data set where none may be used or shipped: a quick start, a test of a training run from end
to end, a load of any size. An identity has 48 continuous parameters (`faces.Face`), so that millions differ; pictures
of one identity differ in pose, expression, light, background, blur, noise and occlusion (`faces.View`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_pipeline.synthetic.faces import faces_of, views_of
from data_pipeline.synthetic.portrait import portraits

SMALLEST_SIZE = 16
PIXELS_AT_A_TIME = 1 << 17  # painted together: they stay in a core's own cache


def identity_image(identity: int, index: int, *, size: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Picture `index` of `identity`, (size, size, 3) RGB: a pure function of its arguments.

    The same (seed, identity, index) at another size shows the same person under the same circumstances. ValueError
    for a negative number and for a size under 16 pixels, where eyes have no pixel left.
    """
    picture: NDArray[np.uint8] = identity_pictures([identity], [index], size=size, seed=seed)[0]
    return picture


def identity_images(identity: int, count: int, *, size: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Pictures 0 .. count - 1 of `identity`, (count, size, size, 3)."""
    return identity_pictures([identity] * count, range(count), size=size, seed=seed)


def identity_pictures(identities: ArrayLike, indices: ArrayLike, *, size: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Picture `indices[i]` of `identities[i]`, (n, size, size, 3): each as `identity_image` draws it alone.

    Hundreds together cost a small part of that: of 24 pixels 90 us of a core each instead of 2 ms, of 64 pixels 400 us.
    """
    who, which = np.asarray(identities, np.int64), np.asarray(indices, np.int64)
    if size < SMALLEST_SIZE:
        raise ValueError(f"a synthetic picture needs a size of at least {SMALLEST_SIZE} pixels, got {size}")
    if min(who.min(initial=0), which.min(initial=0), seed) < 0:
        raise ValueError(f"identity, index and seed count from 0, got {who.min()}, {which.min()} and {seed}")
    pictures = np.empty((who.size, size, size, 3), np.uint8)
    step = max(PIXELS_AT_A_TIME // size**2, 1)
    for first in range(0, who.size, step):
        some = slice(first, first + step)
        face, view = faces_of(seed, who[some]), views_of(seed, who[some], which[some])
        pictures[some] = portraits(face, view, size)
    return pictures
