"""A cartoon portrait: one `Face` under one `View`, painted from the background to the glasses.

A feature sits on a ball and moves with yaw and pitch as a point of that ball does; the light shades the head as if it
were round. Each small feature is painted inside its own window, so that most of them cost a call and not a picture.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data_pipeline.canvas import Array, Canvas, Window
from data_pipeline.faces import Face, View, uniforms


def colour(red: float, green: float, blue: float) -> Array:
    """The colour as a (3, 1, 1) array that spreads over a window."""
    return np.array((red, green, blue), dtype=np.float32).reshape(3, 1, 1)


def mixed(first: Array, second: Array, share: float) -> Array:
    """(1 - share) first + share second."""
    return first + share * (second - first)


FAIR, DARK = colour(0.98, 0.82, 0.71), colour(0.36, 0.22, 0.15)
BLOND, BLACK = colour(0.88, 0.72, 0.42), colour(0.08, 0.06, 0.06)
RED, GREY = colour(0.60, 0.22, 0.07), colour(0.72, 0.72, 0.72)
BLUE_IRIS, GREEN_IRIS, BROWN_IRIS = colour(0.28, 0.50, 0.80), colour(0.33, 0.50, 0.26), colour(0.28, 0.15, 0.07)
WHITE, PUPIL, MOUTH, ROSE = colour(0.95, 0.95, 0.95), colour(0.04, 0.03, 0.03), colour(0.28, 0.07, 0.08), colour(0.82, 0.22, 0.27)


def portrait(face: Face, view: View, size: int) -> NDArray[np.uint8]:
    """The picture of `face` under `view`, (size, size, 3) RGB."""
    canvas = Canvas(view, size)
    skin, hair = skin_colour(face), hair_colour(face)
    paint_background(canvas, view)
    paint_back_hair(canvas, face, view, hair)
    paint_shoulders(canvas, face, view, skin)
    paint_ears(canvas, face, skin)
    window, head, shading = paint_head(canvas, face, view, skin)
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
    return mixed(FAIR, DARK, face.skin_melanin**1.4) * colour(1, 1 - 0.05 * face.skin_warmth, 1 - 0.10 * face.skin_warmth)


def hair_colour(face: Face) -> Array:
    """From blond to black by melanin, towards red and towards grey."""
    pigment = mixed(BLOND, BLACK, min(1.0, 1.3 * face.hair_melanin) ** 0.6)
    return mixed(mixed(pigment, RED, 0.75 * face.hair_redness**3), GREY, 0.85 * max(face.hair_greyness, 0.0))


def iris_colour(hue: float) -> Array:
    """Blue, green and brown at hue 0, 0.4 and 0.8."""
    return mixed(BLUE_IRIS, GREEN_IRIS, hue / 0.4) if hue < 0.4 else mixed(GREEN_IRIS, BROWN_IRIS, min(hue / 0.4 - 1, 1.0))


def paint_background(canvas: Canvas, view: View) -> None:
    """One colour with smooth blotches on it."""
    blotches = field_window(blotch_field(canvas.size), view)
    np.multiply(blotches, view.clutter, out=canvas.pixels)
    canvas.pixels += colour(view.background_red, view.background_green, view.background_blue)


def paint_back_hair(canvas: Canvas, face: Face, view: View, hair: Array) -> None:
    """The hair behind the head: a cap that runs on downwards as far as the hair is long."""
    volume = face.hair_volume + view.hair_fuss
    if volume < 0:
        return
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


def paint_head(canvas: Canvas, face: Face, view: View, skin: Array) -> tuple[Window, Array, Array]:
    """Paint the lit head; its window, coverage and shading."""
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
    return window, coverage, shading


def light_direction(view: View) -> tuple[float, float, float]:
    """The unit vector towards the light: right, down, out of the picture."""
    slant = math.sin(view.light_slant_radians)
    across, along = math.cos(view.light_angle_radians) * slant, math.sin(view.light_angle_radians) * slant
    return across, along, math.cos(view.light_slant_radians)


def paint_beard(canvas: Canvas, face: Face, hair: Array, window: Window, head: Array) -> None:
    """Hair on the lower part of the head, from stubble to a full beard."""
    if face.beard <= 0:
        return
    _, v0, _ = canvas.spot(0, mouth_height(face), 0.05)
    a, b = canvas.around(window, 0.06 * canvas.yaw_sin, v0)
    line = canvas.coverage((0.02 - b - face.beard_rise * a * a) * 0.4)
    line *= head
    line *= min(1.0, 0.35 + 0.65 * face.beard)
    canvas.paint(window, line, hair * 0.9)


def mouth_height(face: Face) -> float:
    """v of the mouth of a face seen from the front."""
    return face.eye_height + face.nose_length + face.mouth_drop


def paint_eye(canvas: Canvas, face: Face, view: View, side: int, skin: Array) -> None:
    """The almond of one eye: lid, white, iris, pupil."""
    u, v, stretch = canvas.spot(side * face.eye_distance, face.eye_height)
    width, opening = face.eye_width * stretch, face.eye_opening * (1 - max(view.eye_closing, 0.0))
    window = canvas.window(u, v, width * 1.1, 0.09)
    a, b = canvas.around(window, u, v)
    b += side * face.eye_tilt * a
    bow = opening * (1 - (a / width) ** 2)
    lid = canvas.coverage(np.abs(b + 0.012) - bow - 0.014)
    canvas.paint(window, lid, skin * 0.30)
    almond = canvas.coverage(np.abs(b) - bow)
    canvas.paint(window, almond, WHITE)
    a -= (view.gaze + 0.25 * canvas.yaw_sin) * width
    radius = np.sqrt((a / stretch) ** 2 + b * b)
    canvas.paint(window, canvas.coverage(radius - face.iris_radius) * almond, iris_colour(face.iris_hue))
    canvas.paint(window, canvas.coverage(radius - 0.45 * face.iris_radius) * almond, PUPIL)


def paint_brow(canvas: Canvas, face: Face, view: View, side: int, hair: Array) -> None:
    """An arched stroke, thinner towards the temple."""
    u, v, stretch = canvas.spot(side * face.eye_distance * 1.04, face.eye_height - face.brow_distance - view.brow_raise)
    width = 1.3 * face.eye_width * stretch
    window = canvas.window(u, v, width, 0.12)
    a, b = canvas.around(window, u, v)
    a *= side / width
    line = face.brow_arch * (1 - a * a) + face.brow_slant * width * a
    distance = np.maximum(np.abs(b + line) - face.brow_thickness * (1 - 0.45 * a), (np.abs(a) - 1) * width)
    canvas.paint(window, canvas.coverage(distance), hair * 0.7)


def paint_nose(canvas: Canvas, face: Face, view: View, skin: Array) -> None:
    """The nose's shaded flank, away from the light, and the curve under its tip."""
    u, v, stretch = canvas.spot(0, face.eye_height + face.nose_length, 0.10)
    bridge_u, bridge_v, _ = canvas.spot(0, face.eye_height)
    width = face.nose_width * stretch
    window = canvas.window((u + bridge_u) / 2, (v + bridge_v) / 2, width + abs(u - bridge_u), (v - bridge_v) / 2)
    a, b = canvas.around(window, u, v)
    fall = b / (v - bridge_v)
    a -= fall * (u - bridge_u)
    away = -1 if light_direction(view)[0] > 0 else 1
    flank = np.maximum(np.maximum(-away * a, away * a - width * (1 + 0.75 * fall)), b)
    canvas.paint(window, canvas.coverage(flank) * 0.35, skin * 0.55)
    window = canvas.window(u, v, width, 0.05)
    a, b = canvas.around(window, u, v)
    bow = face.nose_curve * (1 - (a / width) ** 2)
    distance = np.maximum(np.abs(b - bow) - 0.013, np.abs(a) - width)
    canvas.paint(window, canvas.coverage(distance), skin * 0.48)


def paint_mouth(canvas: Canvas, face: Face, view: View, skin: Array, hair: Array) -> None:
    """Two lips on a curve, what is between them when the mouth is open, and a moustache."""
    u, v, stretch = canvas.spot(0, mouth_height(face), 0.05)
    width, gap = face.mouth_width * stretch * (1 + 1.5 * max(view.smile, 0.0)), max(view.mouth_opening, 0.0)
    window = canvas.window(u, v, 1.35 * width, 0.20)
    a, b = canvas.around(window, u, v)
    square = (a / width) ** 2
    b += (face.mouth_curve + view.smile) * square
    bow = np.maximum(1 - square, -0.2)
    if face.moustache > 0:
        distance = np.abs(b + 0.045 + face.upper_lip) - 0.035 * (1.25 - square)
        canvas.paint(window, canvas.coverage(distance) * min(1.0, 0.4 + face.moustache), hair * 0.85)
    lips = np.maximum(-b - face.upper_lip * bow, b - (gap + face.lower_lip) * bow)
    canvas.paint(window, canvas.coverage(lips), mixed(skin * 0.85, ROSE, 0.15 + 0.45 * face.lip_redness))
    inside = np.maximum(-b - 0.004, b - 0.006 - gap * bow)
    inside = canvas.coverage(np.maximum(inside, np.abs(a) - 0.95 * width))
    canvas.paint(window, inside, MOUTH)
    if gap > 0:
        canvas.paint(window, canvas.coverage(b - 0.45 * gap * bow) * inside, WHITE * 0.93)


def paint_front_hair(canvas: Canvas, face: Face, view: View, hair: Array) -> None:
    """The hair above the hairline, which falls away from the parting to both sides."""
    volume = face.hair_volume + view.hair_fuss
    if volume < 0:
        return
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


def paint_glasses(canvas: Canvas, face: Face) -> None:
    """Two rims and a bridge, for those who wear glasses."""
    if face.glasses <= 0:
        return
    rim = colour(*(0.55 * share for share in uniforms(int(face.glasses * 2**40), 3)))
    for side in (-1, 1):
        u, v, stretch = canvas.spot(side * face.eye_distance, face.eye_height + 0.01, 0.04)
        half = face.glasses_size
        window = canvas.window(u, v, half * 1.1, half * 1.1)
        a, b = canvas.around(window, u, v)
        a, b = np.abs(a / stretch), np.abs(b) * 1.15
        round_rim, square_rim = np.sqrt(a * a + b * b), np.maximum(a, b)
        distance = np.abs(round_rim + face.glasses_squareness * (square_rim - round_rim) - 0.93 * half) - 0.014
        canvas.paint(window, canvas.coverage(distance), rim)
    u, v, stretch = canvas.spot(0, face.eye_height, 0.10)
    reach = max(face.eye_distance - 0.93 * face.glasses_size, 0.0) * stretch + 0.01
    window = canvas.window(u, v, reach, 0.02)
    a, b = canvas.around(window, u, v)
    canvas.paint(window, canvas.coverage(np.maximum(np.abs(b) - 0.014, np.abs(a) - reach)), rim)


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
    pixels *= colour(view.exposure * (1 + view.warmth), view.exposure * (1 + view.tint), view.exposure * (1 - view.warmth))
    pixels += field_window(noise_field(canvas.size), view) * view.noise
    pixels *= 255
    pixels += 0.5
    np.clip(pixels, 0, 255, out=pixels)
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
    draws = uniforms(size, 36 * size * size).reshape(3, 3, 2 * size, 2 * size)
    return ((draws.sum(axis=0) - 1.5) * 2).astype(np.float32)


@lru_cache(maxsize=4)
def blotch_field(size: int) -> Array:
    """(3, 2 size, 2 size) smooth blotches, about a quarter of the picture wide, of mean 0 and variance 1."""
    blotches, reach = noise_field(size).astype(np.float64), max(size // 8, 1)
    for axis in (1, 2, 1, 2):
        blotches = np.sum([np.roll(blotches, shift, axis) for shift in range(-reach, reach + 1)], axis=0)
    return (blotches / blotches.std()).astype(np.float32)
