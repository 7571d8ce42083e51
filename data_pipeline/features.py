"""The features of a face: eyes, brows, nose, mouth, beard and glasses, each painted inside its own window.

A feature sits on a ball and moves with yaw and pitch as a point of that ball does.
"""

from __future__ import annotations

import math

import numpy as np

from data_pipeline.canvas import Array, Canvas, Window, colour, mixed
from data_pipeline.faces import Face, View

BLUE_IRIS, GREEN_IRIS, BROWN_IRIS = colour(0.28, 0.50, 0.80), colour(0.33, 0.50, 0.26), colour(0.28, 0.15, 0.07)
WHITE, PUPIL = colour(0.95, 0.95, 0.95), colour(0.04, 0.03, 0.03)
MOUTH, ROSE = colour(0.28, 0.07, 0.08), colour(0.82, 0.22, 0.27)


def iris_colour(hue: float) -> Array:
    """Blue, green and brown at hue 0, 0.4 and 0.8."""
    if hue < 0.4:
        return mixed(BLUE_IRIS, GREEN_IRIS, hue / 0.4)
    return mixed(GREEN_IRIS, BROWN_IRIS, min(hue / 0.4 - 1, 1.0))


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
    window = canvas.window(u, v, width * 1.1, 0.03 + opening + abs(face.eye_tilt) * width)
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
    window = canvas.window(u, v, width, 0.05 + face.brow_arch + abs(face.brow_slant) * width)
    a, b = canvas.around(window, u, v)
    a *= side / width
    line = face.brow_arch * (1 - a * a) + face.brow_slant * width * a
    distance = np.maximum(np.abs(b + line) - face.brow_thickness * (1 - 0.45 * a), (np.abs(a) - 1) * width)
    canvas.paint(window, canvas.coverage(distance), hair * 0.7)


def light_direction(view: View) -> tuple[float, float, float]:
    """The unit vector towards the light: right, down, out of the picture."""
    slant = math.sin(view.light_slant_radians)
    across, along = math.cos(view.light_angle_radians) * slant, math.sin(view.light_angle_radians) * slant
    return across, along, math.cos(view.light_slant_radians)


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


def paint_glasses(canvas: Canvas, face: Face) -> None:
    """Two rims and a bridge, for those who wear glasses."""
    if face.glasses <= 0:
        return
    rim = colour(face.rim_red, face.rim_green, face.rim_blue)
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
