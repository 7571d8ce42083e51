"""A cartoon portrait: one `Face` under one `View`, painted from the background to the glasses.

The background, hair, head and clothes are here, the light and the camera too; `features` has what is in the face. Each
shape is painted inside its own window, so that most of them cost a few calls and not a picture.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data_pipeline.canvas import Array, Canvas, Window, bounded, colour, mixed
from data_pipeline.counter_hash import bits, fractions
from data_pipeline.faces import Face, View
from data_pipeline.features import (
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


def portrait(face: Face, view: View, size: int) -> NDArray[np.uint8]:
    """The picture of `face` under `view`, (size, size, 3) RGB."""
    canvas = Canvas(view, size)
    skin, hair = skin_colour(face), hair_colour(face)
    paint_background(canvas, view)
    paint_back_hair(canvas, face, view, hair)
    paint_shoulders(canvas, face, view, skin)
    paint_ears(canvas, face, skin)
    window, head = paint_head(canvas, face, view, skin)
    paint_beard(canvas, face, hair, window, head)
    for side in (-1, 1):
        paint_eye(canvas, face, view, side, skin)
        paint_brow(canvas, face, view, side, hair)
    paint_nose(canvas, face, view, skin)
    paint_mouth(canvas, face, view, skin, hair)
    paint_front_hair(canvas, face, view, hair)
    paint_glasses(canvas, face)
    paint_occluder(canvas, view)
    return developed(canvas, view)


def skin_colour(face: Face) -> Array:
    """From fair to dark, a little towards rose or olive."""
    warmth = 0.05 * face.skin_warmth
    return mixed(FAIR, DARK, face.skin_melanin**1.4) * colour(1, 1 - warmth, 1 - 2 * warmth)


def hair_colour(face: Face) -> Array:
    """From blond to black by melanin, towards red and towards grey."""
    pigment = mixed(BLOND, BLACK, min(1.0, 1.3 * face.hair_melanin) ** 0.6)
    return mixed(mixed(pigment, RED, 0.75 * face.hair_redness**3), GREY, 0.85 * max(face.hair_greyness, 0.0))


def paint_background(canvas: Canvas, view: View) -> None:
    """One colour with smooth blotches on it."""
    blotches = field_window(blotch_field(canvas.size), view)
    np.multiply(blotches, view.clutter, out=canvas.pixels)
    canvas.pixels += mixed(colour(view.background_red, view.background_green, view.background_blue), GREY, 0.35)


def paint_back_hair(canvas: Canvas, face: Face, view: View, hair: Array) -> None:
    """The hair behind the head: a cap that runs on downwards as far as the hair is long."""
    if face.hair_volume <= 0:
        return
    volume = face.hair_volume + view.hair_fuss
    width, height = face.face_width + 0.03 + volume, face.face_height + 0.01 + volume
    u0 = -0.10 * canvas.yaw_sin
    window = canvas.window(u0, 0.0, width * 1.1, max(height, face.hair_length) + 0.1)
    a, b = canvas.around(window, u0, -0.02)
    up, down = np.minimum(b, 0) / height, np.maximum(b, 0)
    distance = (np.sqrt((a / width) ** 2 + up * up) - 1) * width - face.hair_wave * down
    distance = np.maximum(distance, b - face.hair_length + 0.25 * a * a)
    canvas.paint(window, canvas.coverage(distance), hair * 0.75)


def paint_shoulders(canvas: Canvas, face: Face, view: View, skin: Array) -> None:
    """Neck and clothes, as far as they are in the picture."""
    chin = face.face_height
    window = canvas.window(0, chin + 0.1, face.face_width * 0.6, 0.4)
    a, _ = canvas.around(window, 0.0, 0.0)
    canvas.paint(window, canvas.coverage(np.abs(a) - 0.58 * face.face_width), skin * 0.68)
    window = canvas.window(0, chin + 1.0, 2.0, 0.95)
    a, b = canvas.around(window, 0.0, chin + 0.15)
    distance = 0.22 * np.maximum(np.abs(a) - 0.2, 0) - b
    canvas.paint(window, canvas.coverage(distance), colour(view.clothes_red, view.clothes_green, view.clothes_blue))


def paint_ears(canvas: Canvas, face: Face, skin: Array) -> None:
    """Two ears at the edge of the head; the one the head turns towards hides behind it."""
    for side in (-1, 1):
        u, v = side * (face.face_width - 0.005) - 0.10 * canvas.yaw_sin, 0.03 - 0.12 * canvas.pitch_sin
        window = canvas.window(u, v, face.ear_size, 1.5 * face.ear_size)
        a, b = canvas.around(window, u, v)
        canvas.paint(window, canvas.coverage(np.sqrt(a * a + 0.45 * b * b) - face.ear_size), skin * 0.82)


def paint_head(canvas: Canvas, face: Face, view: View, skin: Array) -> tuple[Window, Array]:
    """Paint the head, shaded as if it were round; its window and coverage."""
    u0, v0 = 0.05 * canvas.yaw_sin, 0.03 * canvas.pitch_sin
    window = canvas.window(u0, v0, face.face_width * 1.15, face.face_height)
    a, b = canvas.around(window, u0, v0)
    a /= face.face_width
    b /= face.face_height
    down = np.maximum(b, 0)
    a /= 1 + down * (face.cheeks - (face.jaw_taper + face.cheeks) * down)
    square = a * a + b * b
    coverage = canvas.coverage((np.sqrt(square) - 1) * face.face_width)
    depth = np.sqrt(np.maximum(1 - square, 0))
    across, along, ahead = light_direction(view)
    shading = 0.62 + 0.42 * (across * a + along * b + ahead * depth)
    canvas.paint(window, coverage, skin * shading)
    return window, coverage


def paint_front_hair(canvas: Canvas, face: Face, view: View, hair: Array) -> None:
    """The hair above the hairline, which falls away from the parting to both sides."""
    if face.hair_volume <= 0:
        return
    volume = face.hair_volume + view.hair_fuss
    width, height = face.face_width + 0.02 + 0.7 * volume, face.face_height + 0.01 + volume
    u0 = -0.04 * canvas.yaw_sin
    window = canvas.window(u0, 0, width, height + 0.02)
    a, b = canvas.around(window, u0, -0.02)
    cap = (np.sqrt((a / width) ** 2 + (b / height) ** 2) - 1) * width
    a -= face.hair_parting + 0.35 * canvas.yaw_sin
    line = face.hairline_height + 0.12 * canvas.pitch_sin + face.hairline_drop * a * a + face.hairline_slope * a
    lock = face.lock_depth * np.abs(a / face.lock_width - np.floor(a / face.lock_width) - 0.5)
    coverage = canvas.coverage(np.maximum(cap, b - line + lock))
    sheen = 0.85 + 0.5 * np.maximum(0, 1 - 9 * (b + 0.72 * height) ** 2)
    canvas.paint(window, coverage, hair * sheen)


def paint_occluder(canvas: Canvas, view: View) -> None:
    """In some pictures something straight-edged stands before a part of the face."""
    if view.occlusion <= 0:
        return
    cos, sin = math.cos(view.occluder_angle_radians), math.sin(view.occluder_angle_radians)
    distance = view.occluder_distance - canvas.u * cos - canvas.v * sin
    whole = (slice(None), slice(None))
    canvas.paint(whole, canvas.coverage(distance), colour(view.clothes_blue, view.background_red, view.clothes_green))


def developed(canvas: Canvas, view: View) -> NDArray[np.uint8]:
    """The canvas under the picture's exposure, contrast, colour cast and noise, as (size, size, 3) bytes."""
    pixels = canvas.pixels
    pixels -= 0.45
    pixels *= view.contrast * (1 + view.gradient_x * canvas.ramp + view.gradient_y * canvas.ramp[:, None])
    pixels += 0.45
    pixels *= view.exposure * colour(1 + view.warmth, 1 + view.tint, 1 - view.warmth)
    pixels += field_window(noise_field(canvas.size), view) * view.noise
    pixels *= 255
    pixels += 0.5
    bounded(pixels, 255)
    return np.ascontiguousarray(pixels.astype(np.uint8).transpose(1, 2, 0))


def field_window(field: Array, view: View) -> Array:
    """The (3, size, size) part of a (3, 2 size, 2 size) field that this view meets."""
    size = field.shape[1] // 2
    row, column = int(view.field_row * size), int(view.field_column * size)
    return field[:, row : row + size, column : column + size]


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
