"""A canvas in the coordinates of a face, on which signed-distance shapes are painted.

A signed distance d (negative inside) becomes a coverage clip(1/2 - d/w, 0, 1). The edge width w is antialiasing and,
when larger, the blur of a lens: a blurred picture costs nothing extra. Whole arrays meet only +, -, *, /, sqrt, min and
max, which IEEE 754 rounds exactly, so the pixels do not depend on which vector instructions a processor has.

Face frame: u to the right of the picture, v downwards, in half widths of the picture at scale 1, turned with the head.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.faces import View

Array = NDArray[np.floating[Any]]  # float32 throughout; NumPy's stubs take some float32 arithmetic for float64
Window = tuple[slice, slice]

BALL_RADIUS = 0.6
TURNING_DEPTH = 0.3  # the neck's axis lies this far behind the middle of the ball's front


class Spot(NamedTuple):
    """Where a feature lands in the face frame, and how much the turned head narrows it."""

    u: float
    v: float
    stretch: float


def colour(red: float, green: float, blue: float) -> Array:
    """The colour as a (3, 1, 1) array that spreads over a window."""
    return np.array((red, green, blue), dtype=np.float32).reshape(3, 1, 1)


def mixed(first: Array, second: Array, share: float) -> Array:
    """(1 - share) first + share second."""
    return first + share * (second - first)


def bounded(values: Array, highest: float) -> Array:
    """`values` limited to 0..highest in place; np.clip would take three times as long on a small window."""
    np.maximum(values, 0, out=values)
    return np.minimum(values, highest, out=values)


class Canvas:
    """A picture being painted: `pixels` (3, size, size) and the face-frame coordinates `u`, `v` of every pixel."""

    def __init__(self, view: View, size: int) -> None:
        self.size = size
        self.scale = math.exp(view.log_scale)
        self.shift_x, self.shift_y = view.shift_x, view.shift_y
        self.roll_cos, self.roll_sin = math.cos(view.roll_radians), math.sin(view.roll_radians)
        self.yaw_cos, self.yaw_sin = math.cos(view.yaw_radians), math.sin(view.yaw_radians)
        self.pitch_cos, self.pitch_sin = math.cos(view.pitch_radians), math.sin(view.pitch_radians)
        self.edge = math.hypot(2 / (size * self.scale), max(view.blur, 0.0))
        self.ramp: Array = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
        x = (self.ramp - self.shift_x) / self.scale
        y = ((self.ramp - self.shift_y) / self.scale)[:, None]
        self.u: Array = x * self.roll_cos + y * self.roll_sin
        self.v: Array = y * self.roll_cos - x * self.roll_sin
        self.pixels: Array = np.empty((3, size, size), dtype=np.float32)

    def spot(self, x: float, y: float, lift: float = 0.0) -> Spot:
        """Where the point (x, y) of a face seen from the front lands, `lift` above the ball that carries it."""
        z = math.sqrt(max(BALL_RADIUS**2 - x * x - 0.5 * y * y, 0.04))
        forward = z + lift - TURNING_DEPTH
        stretch = max(self.yaw_cos - x / z * self.yaw_sin, 0.35)
        return Spot(x * self.yaw_cos + forward * self.yaw_sin, y * self.pitch_cos + forward * self.pitch_sin, stretch)

    def window(self, u: float, v: float, half_u: float, half_v: float) -> Window:
        """The rows and columns that a shape within half_u, half_v of (u, v) can touch; empty outside the picture."""
        half_u, half_v = half_u + self.edge, half_v + self.edge
        cos, sin = self.roll_cos, self.roll_sin
        x = self.scale * (u * cos - v * sin) + self.shift_x
        y = self.scale * (u * sin + v * cos) + self.shift_y
        reach_x = self.scale * (half_u * cos + half_v * abs(sin))
        reach_y = self.scale * (half_v * cos + half_u * abs(sin))
        return self._span(y - reach_y, y + reach_y), self._span(x - reach_x, x + reach_x)

    def _span(self, low: float, high: float) -> slice:
        stop = min(max(math.ceil((high + 1) * self.size / 2), 0), self.size)
        return slice(min(max(math.floor((low + 1) * self.size / 2), 0), stop), stop)

    def around(self, window: Window, u: float, v: float) -> tuple[Array, Array]:
        """The coordinates of the window's pixels relative to (u, v), as fresh arrays."""
        return self.u[window] - u, self.v[window] - v

    def coverage(self, distance: Array) -> Array:
        """clip(1/2 - distance/edge, 0, 1), in the memory of `distance`."""
        distance *= -1 / self.edge
        distance += 0.5
        return bounded(distance, 1)

    def paint(self, window: Window, coverage: Array, paint: Array) -> None:
        """Lay `paint`, (3, 1, 1) or (3, h, w), over the window's pixels with the given coverage (h, w)."""
        pixels = self.pixels[(slice(None), *window)]
        difference = paint - pixels
        difference *= coverage
        pixels += difference
