"""The parameters of synthetic people: `Face` is who somebody is, `View` the circumstances of one picture.

Both are drawn by a counter-based hash, so picture `index` of an identity is a function of (seed, identity, index)
alone: no state, no order. Lengths are in half widths of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_pipeline.counter_hash import bits, fractions, key

Drawn = TypeVar("Drawn")

FACE_STREAM, VIEW_STREAM = 1, 2


def between(low: float, high: float) -> Any:
    """A dataclass field that is drawn uniformly from [low, high]."""
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True)
class Face:
    """What stays: the continuous parameters of one identity. A feature whose range starts below 0 is absent there."""

    skin_melanin: float = between(0.0, 1.0)
    skin_warmth: float = between(-1.0, 1.0)
    face_width: float = between(0.38, 0.49)
    face_height: float = between(0.54, 0.65)
    jaw_taper: float = between(0.05, 0.50)
    cheeks: float = between(-0.10, 0.35)
    ear_size: float = between(0.05, 0.11)
    hair_melanin: float = between(0.0, 1.0)
    hair_redness: float = between(0.0, 1.0)
    hair_greyness: float = between(-1.6, 1.0)
    hair_volume: float = between(-0.02, 0.15)
    hair_length: float = between(-0.25, 0.85)
    hair_wave: float = between(-0.05, 0.22)
    hairline_height: float = between(-0.44, -0.26)
    hairline_drop: float = between(0.0, 2.2)
    hairline_slope: float = between(-0.35, 0.35)
    hair_parting: float = between(-0.22, 0.22)
    lock_width: float = between(0.10, 0.30)
    lock_depth: float = between(0.0, 0.14)
    eye_distance: float = between(0.150, 0.215)
    eye_height: float = between(-0.10, 0.01)
    eye_width: float = between(0.075, 0.115)
    eye_opening: float = between(0.034, 0.066)
    eye_tilt: float = between(-0.22, 0.22)
    iris_hue: float = between(0.0, 1.0)
    iris_radius: float = between(0.036, 0.048)
    brow_distance: float = between(0.085, 0.140)
    brow_thickness: float = between(0.008, 0.034)
    brow_arch: float = between(0.0, 0.06)
    brow_slant: float = between(-0.28, 0.28)
    nose_length: float = between(0.15, 0.26)
    nose_width: float = between(0.045, 0.105)
    nose_curve: float = between(-0.01, 0.04)
    mouth_drop: float = between(0.10, 0.15)
    mouth_width: float = between(0.11, 0.20)
    mouth_curve: float = between(-0.03, 0.03)
    upper_lip: float = between(0.012, 0.034)
    lower_lip: float = between(0.016, 0.044)
    lip_redness: float = between(0.0, 1.0)
    beard: float = between(-2.0, 1.0)
    beard_rise: float = between(0.3, 2.2)
    moustache: float = between(-2.4, 1.0)
    glasses: float = between(-2.6, 1.0)
    glasses_size: float = between(0.105, 0.150)
    glasses_squareness: float = between(0.0, 0.8)
    rim_red: float = between(0.0, 0.55)
    rim_green: float = between(0.0, 0.55)
    rim_blue: float = between(0.0, 0.55)


@dataclass(frozen=True)
class View:
    """What changes: the circumstances of one picture. A range that starts below 0 is "not at all" there."""

    roll_radians: float = between(-0.30, 0.30)
    yaw_radians: float = between(-0.55, 0.55)
    pitch_radians: float = between(-0.32, 0.32)
    shift_x: float = between(-0.12, 0.12)
    shift_y: float = between(-0.10, 0.14)
    log_scale: float = between(-0.16, 0.18)
    smile: float = between(-0.03, 0.07)
    mouth_opening: float = between(-0.09, 0.08)
    eye_closing: float = between(-0.8, 0.7)
    brow_raise: float = between(-0.02, 0.035)
    gaze: float = between(-0.3, 0.3)
    hair_fuss: float = between(-0.012, 0.025)
    light_angle_radians: float = between(-math.pi, math.pi)
    light_slant_radians: float = between(0.0, 1.1)
    exposure: float = between(0.6, 1.25)
    contrast: float = between(0.65, 1.05)
    gradient_x: float = between(-0.35, 0.35)
    gradient_y: float = between(-0.25, 0.25)
    warmth: float = between(-0.12, 0.12)
    tint: float = between(-0.06, 0.06)
    blur: float = between(-0.03, 0.06)
    noise: float = between(0.003, 0.028)
    background_red: float = between(0.05, 0.95)
    background_green: float = between(0.05, 0.95)
    background_blue: float = between(0.05, 0.95)
    clutter: float = between(0.0, 0.13)
    clothes_red: float = between(0.05, 0.95)
    clothes_green: float = between(0.05, 0.95)
    clothes_blue: float = between(0.05, 0.95)
    occlusion: float = between(-6.0, 1.0)
    occluder_angle_radians: float = between(-math.pi, math.pi)
    occluder_distance: float = between(0.25, 0.5)
    field_row: float = between(0.0, 1.0)
    field_column: float = between(0.0, 1.0)


@lru_cache(maxsize=1024)  # pictures of one person are mostly drawn in a row
def face_of(seed: int, identity: int) -> Face:
    """The face of one identity."""
    return _drawn(Face, key(seed, FACE_STREAM), identity)


def view_of(seed: int, identity: int, index: int) -> View:
    """The circumstances of picture `index` of one identity."""
    return _drawn(View, _view_stream(seed, identity), index)


@lru_cache(maxsize=1024)
def _view_stream(seed: int, identity: int) -> int:
    return key(seed, VIEW_STREAM, identity)


def _drawn(kind: Callable[..., Drawn], stream: int, index: int) -> Drawn:
    """The `kind` whose fields are number `index` of the stream, each uniform in its range."""
    lows, spans, counters = _ranges(kind)
    shares = fractions(bits(stream, counters + np.uint64(index * len(lows))))
    return kind(*(lows + spans * shares).tolist())


@cache
def _ranges(kind: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint64]]:
    lows, highs = np.array([each.metadata["range"] for each in fields(kind)]).T
    return lows, highs - lows, np.arange(len(lows), dtype=np.uint64)
