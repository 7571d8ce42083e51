"""The slow readable twins of what DALI does to an augmented image: bytes (height, width, 3) in, unrounded levels out.

Pillow where it holds the same arithmetic (resampling, JPEG), plain NumPy in float64 elsewhere.
"""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Levels = NDArray[np.float64]

# NTSC's luma and chroma, to three digits as DALI has them: an inverse by hand would be another matrix.
RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ)
MIDDLE_GREY = 128.0


def warped(image: Pixels, matrix: NDArray[np.float32], fill: int) -> Levels:
    """Each output pixel's centre is looked up in the input, bilinearly; outside lies `fill`."""
    height, width, _ = image.shape
    out = np.empty(image.shape)
    for y in range(height):
        for x in range(width):
            at_x, at_y = matrix.astype(np.float64) @ [x + 0.5, y + 0.5, 1.0] - 0.5
            total = np.zeros(3)
            for row in (math.floor(at_y), math.floor(at_y) + 1):
                for column in (math.floor(at_x), math.floor(at_x) + 1):
                    inside = 0 <= row < height and 0 <= column < width
                    weight = (1 - abs(at_y - row)) * (1 - abs(at_x - column))
                    total += weight * (image[row, column] if inside else fill)
            out[y, x] = total
    return out


def resized(image: Levels, height: int, width: int, start: tuple[float, float], end: tuple[float, float]) -> Levels:
    """The box from `start` to `end`, (y, x) in pixels, drawn to height x width through a triangle as wide as a pixel of
    the coarser side; it may look beyond the box, and repeats the image's rim where that ends."""
    rows = _triangles(image.shape[0], height, start[0], end[0])
    columns = _triangles(image.shape[1], width, start[1], end[1])
    return np.asarray(np.einsum("yi,xj,ijc->yxc", rows, columns, image, optimize=True))


def _triangles(size: int, count: int, start: float, end: float) -> NDArray[np.float64]:
    """Weights (count, size) of the input pixels in each output pixel; every row adds up to 1."""
    step = (end - start) / count
    reach = max(step, 1.0)
    weights = np.zeros((count, size))
    for number in range(count):
        centre = start + (number + 0.5) * step - 0.5
        for place in range(math.floor(centre - reach), math.ceil(centre + reach) + 1):
            weights[number, min(max(place, 0), size - 1)] += max(0.0, 1 - abs(place - centre) / reach)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def coloured(image: Pixels, brightness: float, contrast: float, saturation: float, hue_degrees: float) -> Levels:
    """Chroma turned and stretched, then contrast about middle grey, then brightness; not yet cut to 0 .. 255."""
    angle = math.radians(hue_degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    yiq = image @ RGB_TO_YIQ.T
    yiq[..., 1:] = saturation * yiq[..., 1:] @ turn.T
    return np.asarray(brightness * (MIDDLE_GREY + contrast * (yiq @ YIQ_TO_RGB.T - MIDDLE_GREY)))


def greyed(image: Pixels) -> Levels:
    """Luma in all three channels."""
    return np.repeat(image @ RGB_TO_YIQ[0, :, None], 3, axis=2)


def blurred(image: Pixels, pixels: float) -> Levels:
    """A Gaussian cut off at three standard deviations; beyond the rim lies the mirror image, without its first row."""
    reach = math.ceil(3 * pixels)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / pixels) ** 2)
    weights /= weights.sum()
    levels = image.astype(np.float64)
    for axis in (0, 1):
        padding = [(reach, reach) if axis == side else (0, 0) for side in range(3)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(levels, padding, "reflect"), 2 * reach + 1, axis)
        levels = windows @ weights
    return levels


def coarsened(image: Pixels, height: int, width: int) -> Levels:
    """Drawn small, in bytes, and large again."""
    full = image.shape[0], image.shape[1]
    small = np.rint(resized(image.astype(np.float64), height, width, (0, 0), full))
    return resized(small, *full, (0, 0), (height, width))


def compressed(image: Pixels, quality: int) -> Levels:
    """Through a JPEG file, colours at half the resolution."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file)).astype(np.float64)


def erased(image: Pixels, start: tuple[int, int], size: tuple[int, int], fill: int) -> Levels:
    """A box of `fill`, (y, x) in whole pixels."""
    out = image.astype(np.float64)
    out[start[0] : start[0] + size[0], start[1] : start[1] + size[1]] = fill
    return out
