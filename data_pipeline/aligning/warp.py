"""A picture seen through a similarity transform, by bilinear interpolation."""

import numpy as np
from numpy.typing import NDArray

from data_pipeline.aligning.similarity import SIDE, similarity

STEPS_PER_PIXEL = 32
FINE_STEPS = 1024  # a pixel's, in which the parts of a place are added before it is rounded


def aligned_face(pixels: NDArray[np.uint8], landmarks: NDArray[np.float64], side: int = SIDE) -> NDArray[np.uint8]:
    """The face with `landmarks`, (5, 2), in `pixels`, (height, width, channels), as (side, side, channels).

    The template is that of 112 pixels, scaled to `side`. ValueError as `similarity` has it.
    """
    matrix = similarity(landmarks)
    matrix[:, :] *= side / SIDE
    return warped(pixels, matrix, side)


def warped(pixels: NDArray[np.uint8], matrix: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """`pixels` moved by `matrix`, (2, 3), black around them: pixel (x, y) of the result is that at its inverse.

    A pixel is the weighted mean of the four around its place, rounded; those outside of the picture are black. Places
    are rounded to 1/32 pixel in the arithmetic of OpenCV 4's `warpAffine`, with which the field's faces were aligned:
    the pixels are the same. OpenCV 5 does not round them, which is up to 7 grey levels in noise, 0.1 in the mean of a
    photograph.
    """
    steps = _steps(matrix, side, pixels.shape)
    corner = steps // STEPS_PER_PIXEL
    part = steps - corner * STEPS_PER_PIXEL
    near = (STEPS_PER_PIXEL - part, part)
    framed = np.pad(pixels, ((2, 3), (2, 3), (0, 0)))
    flat, width = framed.reshape(-1, pixels.shape[2]), framed.shape[1]
    first = (corner[..., 1] + 2) * width + corner[..., 0] + 2
    total = np.full((side, side, pixels.shape[2]), STEPS_PER_PIXEL**2 // 2, np.int32)
    for right in (0, 1):
        for below in (0, 1):
            weight = near[right][..., 0] * near[below][..., 1]
            total += weight[..., None] * flat.take(first + (below * width + right), axis=0)
    return (total // STEPS_PER_PIXEL**2).astype(np.uint8)


def _steps(matrix: NDArray[np.float64], side: int, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Where each pixel of the result lies in the picture, (side, side, 2) as x and y in steps."""
    turned = np.linalg.inv(matrix[:, :2])
    shift = -turned @ matrix[:, 2]
    along = np.arange(side)
    of_columns = np.rint(np.outer(along, turned[:, 0]) * FINE_STEPS)
    of_rows = np.rint((np.outer(along, turned[:, 1]) + shift) * FINE_STEPS)
    rounding = FINE_STEPS // STEPS_PER_PIXEL
    steps = (of_columns[None] + of_rows[:, None] + rounding // 2) // rounding
    # Far outside is as black as just outside; the bounds keep the numbers small.
    bounded: NDArray[np.float64] = np.clip(steps, -2 * STEPS_PER_PIXEL, (np.array(shape[1::-1]) + 1) * STEPS_PER_PIXEL)
    return bounded.astype(np.int32)
