"""The parameters of synthetic people: `Face` is who somebody is, `View` the circumstances of a picture.

Both hold a column per parameter, with an entry for each of some pictures. They are drawn by a counter-based hash, so
picture `index` of an identity is a function of (seed, identity, index) alone: no state, no order. Lengths are in half
widths of the picture.
"""

# ruff: noqa: RUF009  `between` is a dataclasses.field and shared by nobody

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_pipeline.hashing import bits, fractions, key

Drawn = TypeVar("Drawn")
Column = NDArray[np.float64]
Numbers = NDArray[np.int64]

FACE_STREAM, VIEW_STREAM = 1, 2


def between(low: float, high: float) -> Any:
    """A dataclass field that is drawn uniformly from [low, high]."""
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True, eq=False)
class Face:
    """What stays: the continuous parameters of an identity. A feature whose range starts below 0 is absent there."""

    skin_melanin: Column = between(0.0, 1.0)
    skin_warmth: Column = between(-1.0, 1.0)
    face_width: Column = between(0.38, 0.49)
    face_height: Column = between(0.54, 0.65)
    jaw_taper: Column = between(0.05, 0.50)
    cheeks: Column = between(-0.10, 0.35)
    ear_size: Column = between(0.05, 0.11)
    hair_melanin: Column = between(0.0, 1.0)
    hair_redness: Column = between(0.0, 1.0)
    hair_greyness: Column = between(-1.6, 1.0)
    hair_volume: Column = between(-0.02, 0.15)
    hair_length: Column = between(-0.25, 0.85)
    hair_wave: Column = between(-0.05, 0.22)
    hairline_height: Column = between(-0.44, -0.26)
    hairline_drop: Column = between(0.0, 2.2)
    hairline_slope: Column = between(-0.35, 0.35)
    hair_parting: Column = between(-0.22, 0.22)
    lock_width: Column = between(0.10, 0.30)
    lock_depth: Column = between(0.0, 0.14)
    eye_distance: Column = between(0.150, 0.215)
    eye_height: Column = between(-0.10, 0.01)
    eye_width: Column = between(0.075, 0.115)
    eye_opening: Column = between(0.034, 0.066)
    eye_tilt: Column = between(-0.22, 0.22)
    iris_hue: Column = between(0.0, 1.0)
    iris_radius: Column = between(0.036, 0.048)
    brow_distance: Column = between(0.085, 0.140)
    brow_thickness: Column = between(0.008, 0.034)
    brow_arch: Column = between(0.0, 0.06)
    brow_slant: Column = between(-0.28, 0.28)
    nose_length: Column = between(0.15, 0.26)
    nose_width: Column = between(0.045, 0.105)
    nose_curve: Column = between(-0.01, 0.04)
    mouth_drop: Column = between(0.10, 0.15)
    mouth_width: Column = between(0.11, 0.20)
    mouth_curve: Column = between(-0.03, 0.03)
    upper_lip: Column = between(0.012, 0.034)
    lower_lip: Column = between(0.016, 0.044)
    lip_redness: Column = between(0.0, 1.0)
    beard: Column = between(-2.0, 1.0)
    beard_rise: Column = between(0.3, 2.2)
    moustache: Column = between(-2.4, 1.0)
    glasses: Column = between(-2.6, 1.0)
    glasses_size: Column = between(0.105, 0.150)
    glasses_squareness: Column = between(0.0, 0.8)
    rim_red: Column = between(0.0, 0.55)
    rim_green: Column = between(0.0, 0.55)
    rim_blue: Column = between(0.0, 0.55)


@dataclass(frozen=True, eq=False)
class View:
    """What changes: the circumstances of a picture. A range that starts below 0 is "not at all" there."""

    roll_radians: Column = between(-0.30, 0.30)
    yaw_radians: Column = between(-0.55, 0.55)
    pitch_radians: Column = between(-0.32, 0.32)
    shift_x: Column = between(-0.12, 0.12)
    shift_y: Column = between(-0.10, 0.14)
    log_scale: Column = between(-0.16, 0.18)
    smile: Column = between(-0.03, 0.07)
    mouth_opening: Column = between(-0.09, 0.08)
    eye_closing: Column = between(-0.8, 0.7)
    brow_raise: Column = between(-0.02, 0.035)
    gaze: Column = between(-0.3, 0.3)
    hair_fuss: Column = between(-0.012, 0.025)
    light_angle_radians: Column = between(-math.pi, math.pi)
    light_slant_radians: Column = between(0.0, 1.1)
    exposure: Column = between(0.6, 1.25)
    contrast: Column = between(0.65, 1.05)
    gradient_x: Column = between(-0.35, 0.35)
    gradient_y: Column = between(-0.25, 0.25)
    warmth: Column = between(-0.12, 0.12)
    tint: Column = between(-0.06, 0.06)
    blur: Column = between(-0.03, 0.06)
    noise: Column = between(0.003, 0.028)
    background_red: Column = between(0.05, 0.95)
    background_green: Column = between(0.05, 0.95)
    background_blue: Column = between(0.05, 0.95)
    clutter: Column = between(0.0, 0.13)
    clothes_red: Column = between(0.05, 0.95)
    clothes_green: Column = between(0.05, 0.95)
    clothes_blue: Column = between(0.05, 0.95)
    occlusion: Column = between(-6.0, 1.0)
    occluder_angle_radians: Column = between(-math.pi, math.pi)
    occluder_distance: Column = between(0.25, 0.5)
    field_row: Column = between(0.0, 1.0)
    field_column: Column = between(0.0, 1.0)


def faces_of(seed: int, identities: Numbers) -> Face:
    """The faces of some identities, counted from 0."""
    return _drawn(Face, np.full(len(identities), key(seed, FACE_STREAM), np.uint64), identities)


def views_of(seed: int, identities: Numbers, indices: Numbers) -> View:
    """The circumstances of picture `indices[i]` of `identities[i]`."""
    streams = bits(key(seed, VIEW_STREAM), identities.astype(np.uint64))  # key(seed, VIEW_STREAM, identity) of each
    return _drawn(View, streams, indices)


def _drawn(kind: Callable[..., Drawn], streams: NDArray[np.uint64], indices: Numbers) -> Drawn:
    """The `kind` whose fields are number `indices[i]` of stream i, each uniform in its range."""
    lows, spans, counters = _ranges(kind)
    first = indices.astype(np.uint64) * np.uint64(len(lows))
    shares = fractions(bits(streams, counters[:, None] + first))
    return kind(*(lows[:, None] + spans[:, None] * shares))


@cache
def _ranges(kind: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint64]]:
    lows, highs = np.array([each.metadata["range"] for each in fields(kind)]).T
    return lows, highs - lows, np.arange(len(lows), dtype=np.uint64)
