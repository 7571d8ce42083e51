"""Cartoon portraits: each `Face` under its `View`, painted from the background to the glasses.

The background, hair, head and clothes are here, the light and the camera too; `features` has what is in the face. A
shape is painted in all pictures at once, in each inside a window of its own, so that small pictures do not cost one
call for every shape of every picture, and most shapes not a whole picture.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from data_pipeline.hashing import bits, fractions
from data_pipeline.synthetic.canvas import Array, Canvas, Window, bounded, colour, each, mixed, planes
from data_pipeline.synthetic.faces import Column, Face, View
from data_pipeline.synthetic.features import (
    light_direction,
    paint_beard,
    paint_brow,
    paint_eye,
    paint_glasses,
    paint_mouth,
    paint_nose,
)

FAIR, DARK = colour(0.98, 0.82, 0.71), colour(0.36, 0.22, 0.15)
BLOND, BLACK = colour(0.88, 0.72, 0.42), colour(0.08, 0.06, 0.06)
RED, GREY = colour(0.60, 0.22, 0.07), colour(0.72, 0.72, 0.72)


def portraits(face: Face, view: View, size: int) -> NDArray[np.uint8]:
    """The pictures of the faces under the views, (n, size, size, 3) RGB."""
    canvas = Canvas(view, size)
    skin, hair, light = skin_colour(face), hair_colour(face), light_direction(view)
    paint_background(canvas, view)
    paint_back_hair(canvas, face, view, hair)
    paint_shoulders(canvas, face, view, skin)
    paint_ears(canvas, face, skin)
    window, head = paint_head(canvas, face, skin, light)
    paint_beard(canvas, face, hair, window, head)
    for side in (-1, 1):
        paint_eye(canvas, face, view, side, skin)
        paint_brow(canvas, face, view, side, hair)
    paint_nose(canvas, face, skin, light[0])
    paint_mouth(canvas, face, view, skin, hair)
    paint_front_hair(canvas, face, view, hair)
    paint_glasses(canvas, face)
    paint_occluder(canvas, view)
    return developed(canvas, view)


def skin_colour(face: Face) -> Array:
    """From fair to dark, a little towards rose or olive."""
    warmth, darkness = 0.05 * face.skin_warmth, each(lambda melanin: melanin**1.4, face.skin_melanin)
    return mixed(FAIR, DARK, darkness) * colour(np.ones_like(warmth), 1 - warmth, 1 - 2 * warmth)


def hair_colour(face: Face) -> Array:
    """From blond to black by melanin, towards red and towards grey."""
    darkness = each(lambda melanin: min(1.0, 1.3 * melanin) ** 0.6, face.hair_melanin)
    redness = each(lambda redness: 0.75 * redness**3, face.hair_redness)
    return mixed(mixed(mixed(BLOND, BLACK, darkness), RED, redness), GREY, 0.85 * np.maximum(face.hair_greyness, 0.0))


def paint_background(canvas: Canvas, view: View) -> None:
    """One colour with smooth blotches on it."""
    background = mixed(colour(view.background_red, view.background_green, view.background_blue), GREY, 0.35)
    np.multiply(field_windows(blotch_field(canvas.size), view), planes(view.clutter), out=canvas.pictures)
    pictures = canvas.pictures
    pictures += background[:, :, None, None]


def paint_back_hair(canvas: Canvas, face: Face, view: View, hair: Array) -> None:
    """The hair behind the head: a cap that runs on downwards as far as the hair is long."""
    volume = face.hair_volume + view.hair_fuss
    width, height = face.face_width + 0.03 + volume, face.face_height + 0.01 + volume
    u0 = -0.10 * canvas.yaw_sin
    reach = np.maximum(height, face.hair_length) + 0.1
    window = canvas.window(u0, 0.0, width * 1.1, reach, face.hair_volume > 0)
    a, b = canvas.around(window, u0, -0.02)
    wide, up, down = window.of(width), np.minimum(b, 0) / window.of(height), np.maximum(b, 0)
    distance = (np.sqrt((a / wide) ** 2 + up * up) - 1) * wide - window.of(face.hair_wave) * down
    distance = np.maximum(distance, b - window.of(face.hair_length) + 0.25 * a * a)
    canvas.paint(window, canvas.coverage(window, distance), hair * 0.75)


def paint_shoulders(canvas: Canvas, face: Face, view: View, skin: Array) -> None:
    """Neck and clothes, as far as they are in the picture."""
    chin = face.face_height
    window = canvas.window(0, chin + 0.1, face.face_width * 0.6, 0.4)
    a, _ = canvas.around(window, 0.0, 0.0)
    canvas.paint(window, canvas.coverage(window, np.abs(a) - window.of(0.58 * face.face_width)), skin * 0.68)
    window = canvas.window(0, chin + 1.0, 2.0, 0.95)
    a, b = canvas.around(window, 0.0, chin + 0.15)
    distance = 0.22 * np.maximum(np.abs(a) - 0.2, 0) - b
    clothes = colour(view.clothes_red, view.clothes_green, view.clothes_blue)
    canvas.paint(window, canvas.coverage(window, distance), clothes)


def paint_ears(canvas: Canvas, face: Face, skin: Array) -> None:
    """Two ears at the edge of the head; the one the head turns towards hides behind it."""
    for side in (-1, 1):
        u, v = side * (face.face_width - 0.005) - 0.10 * canvas.yaw_sin, 0.03 - 0.12 * canvas.pitch_sin
        window = canvas.window(u, v, face.ear_size, 1.5 * face.ear_size)
        a, b = canvas.around(window, u, v)
        distance = np.sqrt(a * a + 0.45 * b * b) - window.of(face.ear_size)
        canvas.paint(window, canvas.coverage(window, distance), skin * 0.82)


def paint_head(canvas: Canvas, face: Face, skin: Array, light: tuple[Column, Column, Column]) -> tuple[Window, Array]:
    """Paint the head, shaded as if it were round; its window and coverage."""
    u0, v0 = 0.05 * canvas.yaw_sin, 0.03 * canvas.pitch_sin
    window = canvas.window(u0, v0, face.face_width * 1.15, face.face_height)
    a, b = canvas.around(window, u0, v0)
    wide = window.of(face.face_width)
    a /= wide
    b /= window.of(face.face_height)
    down = np.maximum(b, 0)
    taper = 1 + down * (window.of(face.cheeks) - window.of(face.jaw_taper + face.cheeks) * down)
    a /= np.maximum(taper, 0.01)  # far under the chin it goes through 0
    square = a * a + b * b
    coverage = canvas.coverage(window, (np.sqrt(square) - 1) * wide)
    depth = np.sqrt(np.maximum(1 - square, 0))
    across, along, ahead = (window.of(part) for part in light)
    shading = 0.62 + 0.42 * (across * a + along * b + ahead * depth)
    canvas.paint(window, coverage, skin, shading)
    return window, coverage


def paint_front_hair(canvas: Canvas, face: Face, view: View, hair: Array) -> None:
    """The hair above the hairline, which falls away from the parting to both sides."""
    volume = face.hair_volume + view.hair_fuss
    width, height = face.face_width + 0.02 + 0.7 * volume, face.face_height + 0.01 + volume
    u0 = -0.04 * canvas.yaw_sin
    window = canvas.window(u0, 0, width, height + 0.02, face.hair_volume > 0)
    a, b = canvas.around(window, u0, -0.02)
    wide = window.of(width)
    cap = (np.sqrt((a / wide) ** 2 + (b / window.of(height)) ** 2) - 1) * wide
    a -= window.of(face.hair_parting + 0.35 * canvas.yaw_sin)
    line = window.of(face.hairline_height + 0.12 * canvas.pitch_sin) + window.of(face.hairline_drop) * a * a
    line += window.of(face.hairline_slope) * a
    locks = a / window.of(face.lock_width)
    lock = window.of(face.lock_depth) * np.abs(locks - np.floor(locks) - 0.5)
    coverage = canvas.coverage(window, np.maximum(cap, b - line + lock))
    sheen = 0.85 + 0.5 * np.maximum(0, 1 - 9 * (b + window.of(0.72 * height)) ** 2)
    canvas.paint(window, coverage, hair, sheen)


def paint_occluder(canvas: Canvas, view: View) -> None:
    """In some pictures something straight-edged stands before a part of the face."""
    window = canvas.whole(view.occlusion > 0)
    cos, sin = each(math.cos, view.occluder_angle_radians), each(math.sin, view.occluder_angle_radians)
    u, v = canvas.around(window, 0.0, 0.0)
    distance = window.of(view.occluder_distance) - u * window.of(cos) - v * window.of(sin)
    occluder = colour(view.clothes_blue, view.background_red, view.clothes_green)
    canvas.paint(window, canvas.coverage(window, distance), occluder)


def developed(canvas: Canvas, view: View) -> NDArray[np.uint8]:
    """The canvas under the pictures' exposure, contrast, colour cast and noise, as (n, size, size, 3) bytes."""
    pictures = canvas.pictures
    pictures -= np.float32(0.45)
    gradient = 1 + planes(view.gradient_x) * canvas.ramp + planes(view.gradient_y) * canvas.ramp[:, None]
    pictures *= planes(view.contrast) * gradient
    pictures += np.float32(0.45)
    cast = colour(1 + view.warmth, 1 + view.tint, 1 - view.warmth)
    pictures *= (view.exposure.astype(np.float32) * cast)[:, :, None, None]
    pictures += field_windows(noise_field(canvas.size), view) * planes(view.noise)
    pictures *= 255
    pictures += np.float32(0.5)
    bounded(pictures, 255)
    return np.ascontiguousarray(pictures.astype(np.uint8).transpose(1, 2, 3, 0))


def field_windows(field: Array, view: View) -> Array:
    """The (3, n, size, size) parts of a (3, 2 size, 2 size) field that the views meet."""
    size = field.shape[1] // 2
    rows, columns = (view.field_row * size).astype(np.intp), (view.field_column * size).astype(np.intp)
    return sliding_window_view(field, (size, size), axis=(1, 2))[:, rows, columns]


@lru_cache(maxsize=4)
def noise_field(size: int) -> Array:
    """(3, 2 size, 2 size) nearly normal numbers of mean 0 and variance 1; pictures show windows of it.

    Fresh noise for each picture would cost as much as the whole portrait.
    """
    draws = fractions(bits(size, np.arange(36 * size * size, dtype=np.uint64))).reshape(3, 3, 2 * size, 2 * size)
    noise: Array = ((draws.sum(axis=0) - 1.5) * 2).astype(np.float32)
    return noise


@lru_cache(maxsize=4)
def blotch_field(size: int) -> Array:
    """(3, 2 size, 2 size) smooth blotches, about a quarter of the picture wide, of mean 0 and variance 1."""
    blotches, reach = noise_field(size), max(size // 8, 1)
    for axis in (1, 2, 1, 2):
        blotches = np.sum([np.roll(blotches, shift, axis) for shift in range(-reach, reach + 1)], axis=0)
    unit: Array = blotches / blotches.std()
    return unit
