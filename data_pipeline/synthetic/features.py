"""The features of a face: eyes, brows, nose, mouth, beard and glasses, each painted inside its own window.

A feature sits on a ball and moves with yaw and pitch as a point of that ball does.
"""

from __future__ import annotations

import math

import numpy as np

from data_pipeline.synthetic.canvas import Array, Canvas, Window, colour, each, mixed
from data_pipeline.synthetic.faces import Column, Face, View

BLUE_IRIS, GREEN_IRIS, BROWN_IRIS = colour(0.28, 0.50, 0.80), colour(0.33, 0.50, 0.26), colour(0.28, 0.15, 0.07)
WHITE, PUPIL = colour(0.95, 0.95, 0.95), colour(0.04, 0.03, 0.03)
MOUTH, ROSE = colour(0.28, 0.07, 0.08), colour(0.82, 0.22, 0.27)


def iris_colour(hue: Column) -> Array:
    """Blue, green and brown at hue 0, 0.4 and 0.8."""
    bluish = mixed(BLUE_IRIS, GREEN_IRIS, hue / 0.4)
    return np.where(hue < 0.4, bluish, mixed(GREEN_IRIS, BROWN_IRIS, np.minimum(hue / 0.4 - 1, 1.0)))


def paint_beard(canvas: Canvas, face: Face, hair: Array, window: Window, head: Array) -> None:
    """Hair on the lower part of the head, from stubble to a full beard."""
    _, v0, _ = canvas.spot(0, mouth_height(face), 0.05)
    a, b = canvas.around(window, 0.06 * canvas.yaw_sin, v0)
    line = canvas.coverage(window, (0.02 - b - window.of(face.beard_rise) * a * a) * 0.4)
    line *= head
    line *= window.of(where_grown(face.beard, 0.35 + 0.65 * face.beard))
    canvas.paint(window, line, hair * 0.9)


def mouth_height(face: Face) -> Column:
    """v of the mouth of a face seen from the front."""
    return face.eye_height + face.nose_length + face.mouth_drop


def where_grown(hair: Column, density: Column) -> Column:
    """How much a beard or a moustache covers: nothing where there is none."""
    return np.where(hair > 0, np.minimum(density, 1.0), 0.0)


def paint_eye(canvas: Canvas, face: Face, view: View, side: int, skin: Array) -> None:
    """The almond of one eye: lid, white, iris, pupil."""
    u, v, stretch = canvas.spot(side * face.eye_distance, face.eye_height)
    width, opening = face.eye_width * stretch, face.eye_opening * (1 - np.maximum(view.eye_closing, 0.0))
    window = canvas.window(u, v, width * 1.1, 0.03 + opening + np.abs(face.eye_tilt) * width)
    a, b = canvas.around(window, u, v)
    b += window.of(side * face.eye_tilt) * a
    bow = window.of(opening) * (1 - (a / window.of(width)) ** 2)
    lid = canvas.coverage(window, np.abs(b + 0.012) - bow - 0.014)
    canvas.paint(window, lid, skin * 0.30)
    almond = canvas.coverage(window, np.abs(b) - bow)
    canvas.paint(window, almond, WHITE)
    a -= window.of((view.gaze + 0.25 * canvas.yaw_sin) * width)
    radius = np.sqrt((a / window.of(stretch)) ** 2 + b * b)
    iris = canvas.coverage(window, radius - window.of(face.iris_radius))
    canvas.paint(window, iris * almond, iris_colour(face.iris_hue))
    pupil = canvas.coverage(window, radius - window.of(0.45 * face.iris_radius))
    canvas.paint(window, pupil * almond, PUPIL)


def paint_brow(canvas: Canvas, face: Face, view: View, side: int, hair: Array) -> None:
    """An arched stroke, thinner towards the temple."""
    u, v, stretch = canvas.spot(side * face.eye_distance * 1.04, face.eye_height - face.brow_distance - view.brow_raise)
    width = 1.3 * face.eye_width * stretch
    window = canvas.window(u, v, width, 0.05 + face.brow_arch + np.abs(face.brow_slant) * width)
    a, b = canvas.around(window, u, v)
    a *= window.of(side / width)
    line = window.of(face.brow_arch) * (1 - a * a) + window.of(face.brow_slant * width) * a
    stroke = np.abs(b + line) - window.of(face.brow_thickness) * (1 - 0.45 * a)
    distance = np.maximum(stroke, (np.abs(a) - 1) * window.of(width))
    canvas.paint(window, canvas.coverage(window, distance), hair * 0.7)


def light_direction(view: View) -> tuple[Column, Column, Column]:
    """The unit vector towards the light: right, down, out of the picture."""
    slant = each(math.sin, view.light_slant_radians)
    across = each(math.cos, view.light_angle_radians) * slant
    return across, each(math.sin, view.light_angle_radians) * slant, each(math.cos, view.light_slant_radians)


def paint_nose(canvas: Canvas, face: Face, skin: Array, light_across: Column) -> None:
    """The nose's shaded flank, away from the light, and the curve under its tip."""
    u, v, stretch = canvas.spot(0, face.eye_height + face.nose_length, 0.10)
    bridge_u, bridge_v, _ = canvas.spot(0, face.eye_height)
    width = face.nose_width * stretch
    window = canvas.window((u + bridge_u) / 2, (v + bridge_v) / 2, width + np.abs(u - bridge_u), (v - bridge_v) / 2)
    a, b = canvas.around(window, u, v)
    fall = b / window.of(v - bridge_v)
    a -= fall * window.of(u - bridge_u)
    a *= window.of(np.where(light_across > 0, -1.0, 1.0))
    flank = np.maximum(np.maximum(-a, a - window.of(width) * (1 + 0.75 * fall)), b)
    canvas.paint(window, canvas.coverage(window, flank) * 0.35, skin * 0.55)
    window = canvas.window(u, v, width, 0.05)
    a, b = canvas.around(window, u, v)
    wide = window.of(width)
    bow = window.of(face.nose_curve) * (1 - (a / wide) ** 2)
    distance = np.maximum(np.abs(b - bow) - 0.013, np.abs(a) - wide)
    canvas.paint(window, canvas.coverage(window, distance), skin * 0.48)


def paint_mouth(canvas: Canvas, face: Face, view: View, skin: Array, hair: Array) -> None:
    """Two lips on a curve, what is between them when the mouth is open, and a moustache."""
    u, v, stretch = canvas.spot(0, mouth_height(face), 0.05)
    width = face.mouth_width * stretch * (1 + 1.5 * np.maximum(view.smile, 0.0))
    gap = np.maximum(view.mouth_opening, 0.0)
    window = canvas.window(u, v, 1.35 * width, 0.20)
    a, b = canvas.around(window, u, v)
    square = (a / window.of(width)) ** 2
    b += window.of(face.mouth_curve + view.smile) * square
    bow = np.maximum(1 - square, -0.2)
    hairs = np.abs(b + 0.045 + window.of(face.upper_lip)) - 0.035 * (1.25 - square)
    density = window.of(where_grown(face.moustache, 0.4 + face.moustache))
    canvas.paint(window, canvas.coverage(window, hairs) * density, hair * 0.85)
    lips = np.maximum(-b - window.of(face.upper_lip) * bow, b - window.of(gap + face.lower_lip) * bow)
    lip_colour = mixed(skin * 0.85, ROSE, 0.15 + 0.45 * face.lip_redness)
    canvas.paint(window, canvas.coverage(window, lips), lip_colour)
    inside = np.maximum(-b - 0.004, b - 0.006 - window.of(gap) * bow)
    inside = canvas.coverage(window, np.maximum(inside, np.abs(a) - window.of(0.95 * width)))
    canvas.paint(window, inside, MOUTH)
    teeth = canvas.coverage(window, b - window.of(0.45 * gap) * bow)
    canvas.paint(window, teeth * inside * window.of(np.where(gap > 0, 1.0, 0.0)), WHITE * 0.93)


def paint_glasses(canvas: Canvas, face: Face) -> None:
    """Two rims and a bridge, for those who wear glasses."""
    worn, rim = face.glasses > 0, colour(face.rim_red, face.rim_green, face.rim_blue)
    for side in (-1, 1):
        u, v, stretch = canvas.spot(side * face.eye_distance, face.eye_height + 0.01, 0.04)
        half = face.glasses_size
        window = canvas.window(u, v, half * 1.1, half * 1.1, worn)
        a, b = canvas.around(window, u, v)
        a, b = np.abs(a / window.of(stretch)), np.abs(b) * 1.15
        round_rim, square_rim = np.sqrt(a * a + b * b), np.maximum(a, b)
        ring = round_rim + window.of(face.glasses_squareness) * (square_rim - round_rim)
        distance = np.abs(ring - window.of(0.93 * half)) - 0.014
        canvas.paint(window, canvas.coverage(window, distance), rim)
    u, v, stretch = canvas.spot(0, face.eye_height, 0.10)
    reach = np.maximum(face.eye_distance - 0.93 * face.glasses_size, 0.0) * stretch + 0.01
    window = canvas.window(u, v, reach, 0.02, worn)
    a, b = canvas.around(window, u, v)
    distance = np.maximum(np.abs(b) - 0.014, np.abs(a) - window.of(reach))
    canvas.paint(window, canvas.coverage(window, distance), rim)
