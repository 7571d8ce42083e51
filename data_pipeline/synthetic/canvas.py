"""A stack of canvases in the coordinates of a face, on which signed-distance shapes are painted.

A signed distance d (negative inside) becomes a coverage clip(1/2 - d/w, 0, 1). The edge width w is antialiasing and,
when larger, the blur of a lens: a blurred picture costs nothing extra. Whole arrays meet only +, -, *, /, sqrt, min and
max, which IEEE 754 rounds exactly, so the pixels do not depend on which vector instructions a processor has, nor on
which pictures are painted together.

Face frame: u to the right of the picture, v downwards, in half widths of the picture at scale 1, turned with the head.
n pictures, P pixels of all of them under one shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.synthetic.faces import Column, View

Array = NDArray[np.floating[Any]]  # float32 throughout; NumPy's stubs take some float32 arithmetic for float64
Number = Column | float

BALL_RADIUS = 0.6
TURNING_DEPTH = 0.3  # the neck's axis lies this far behind the middle of the ball's front


class Spot(NamedTuple):
    """Where a feature lands in the face frame of each picture, and how much the turned head narrows it."""

    u: Column
    v: Column
    stretch: Column


def each(function: Callable[..., float], *columns: Column) -> Column:
    """`function` of the numbers of each picture by the C library: NumPy's own differs from processor to processor."""
    return np.array(list(map(function, *(column.tolist() for column in columns))))


def colour(red: Number, green: Number, blue: Number) -> Array:
    """The colour as a (3, n) array, (3, 1) for one that all pictures share."""
    return np.array((red, green, blue), dtype=np.float32).reshape(3, -1)


def mixed(first: Array, second: Array, share: Number) -> Array:
    """(1 - share) first + share second."""
    return first + np.float32(share) * (second - first)


def bounded(values: Array, highest: float) -> Array:
    """`values` limited to 0..highest in place; np.clip would take three times as long on a small array."""
    np.maximum(values, 0, out=values)
    return np.minimum(values, highest, out=values)


class Window:
    """The pixels that one shape can touch, of all pictures in a row: a rectangle of each, possibly an empty one."""

    def __init__(
        self,
        size: int,
        top: NDArray[np.intp],
        bottom: NDArray[np.intp],
        left: NDArray[np.intp],
        right: NDArray[np.intp],
    ) -> None:
        heights, widths = bottom - top, right - left
        self.counts = heights * widths
        picture = np.repeat(np.arange(len(top)), heights)
        row = np.arange(len(picture)) - np.repeat(heights.cumsum() - heights, heights) + top[picture]
        width = widths[picture]
        self.index = np.repeat((picture * size + row) * size + left[picture] - (width.cumsum() - width), width)
        self.index += np.arange(len(self.index))

    def of(self, column: Number) -> Array | np.float32:
        """The number of each pixel's picture, (P,); a number that all pictures share, as it is."""
        return column.astype(np.float32).repeat(self.counts) if isinstance(column, np.ndarray) else np.float32(column)

    @cached_property
    def picture(self) -> NDArray[np.intp]:
        """Which picture each pixel is of."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


class Canvas:
    """Pictures being painted: `pixels` (3, n size size), and the face-frame coordinates `u`, `v` of every pixel."""

    def __init__(self, view: View, size: int) -> None:
        self.size, self.count = size, len(view.log_scale)
        self.scale = each(math.exp, view.log_scale)
        self.shift_x, self.shift_y = view.shift_x, view.shift_y
        self.roll_cos, self.roll_sin = each(math.cos, view.roll_radians), each(math.sin, view.roll_radians)
        self.yaw_cos, self.yaw_sin = each(math.cos, view.yaw_radians), each(math.sin, view.yaw_radians)
        self.pitch_cos, self.pitch_sin = each(math.cos, view.pitch_radians), each(math.sin, view.pitch_radians)
        self.edge = each(math.hypot, 2 / (size * self.scale), np.maximum(view.blur, 0.0))
        self.ramp: Array = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
        cos, sin, scale = planes(self.roll_cos), planes(self.roll_sin), planes(self.scale)
        x = (self.ramp - planes(self.shift_x)) / scale
        y = (self.ramp[:, None] - planes(self.shift_y)) / scale
        self.u: Array = (x * cos + y * sin).ravel()
        self.v: Array = (y * cos - x * sin).ravel()
        self.pixels: Array = np.empty((3, self.u.size), dtype=np.float32)

    @property
    def pictures(self) -> Array:
        """The pixels as (3, n, size, size), in the same memory."""
        return self.pixels.reshape(3, self.count, self.size, self.size)

    def spot(self, x: Number, y: Number, lift: float = 0.0) -> Spot:
        """Where the point (x, y) of a face seen from the front lands, `lift` above the ball that carries it."""
        z = np.sqrt(np.maximum(BALL_RADIUS**2 - x * x - 0.5 * y * y, 0.04))
        forward = z + lift - TURNING_DEPTH
        stretch = np.maximum(self.yaw_cos - x / z * self.yaw_sin, 0.35)
        return Spot(x * self.yaw_cos + forward * self.yaw_sin, y * self.pitch_cos + forward * self.pitch_sin, stretch)

    def window(
        self, u: Number, v: Number, half_u: Number, half_v: Number, where: NDArray[np.bool_] | bool = True
    ) -> Window:
        """The pixels that a shape within half_u, half_v of (u, v) can touch, in the pictures `where` there is one."""
        half_u, half_v = half_u + self.edge, half_v + self.edge
        cos, sin = self.roll_cos, self.roll_sin
        x = self.scale * (u * cos - v * sin) + self.shift_x
        y = self.scale * (u * sin + v * cos) + self.shift_y
        reach_x = self.scale * (half_u * cos + half_v * np.abs(sin))
        reach_y = self.scale * (half_v * cos + half_u * np.abs(sin))
        top, bottom = self._span(y - reach_y, y + reach_y)
        return Window(self.size, top, np.where(where, bottom, top), *self._span(x - reach_x, x + reach_x))

    def _span(self, low: Column, high: Column) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        stop = np.minimum(np.maximum(np.ceil((high + 1) * self.size / 2), 0), self.size)
        start = np.minimum(np.maximum(np.floor((low + 1) * self.size / 2), 0), stop)
        return start.astype(np.intp), stop.astype(np.intp)

    def whole(self, where: NDArray[np.bool_]) -> Window:
        """All pixels of the pictures `where`."""
        nought, side = np.zeros(self.count, np.intp), np.full(self.count, self.size)
        return Window(self.size, nought, np.where(where, side, 0), nought, side)

    def around(self, window: Window, u: Number, v: Number) -> tuple[Array, Array]:
        """The coordinates of the window's pixels relative to (u, v), as fresh arrays."""
        a, b = self.u[window.index], self.v[window.index]
        a -= window.of(u)
        b -= window.of(v)
        return a, b

    def coverage(self, window: Window, distance: Array) -> Array:
        """clip(1/2 - distance/edge, 0, 1), in the memory of `distance`."""
        distance *= window.of(-1 / self.edge)
        distance += np.float32(0.5)
        return bounded(distance, 1)

    def paint(self, window: Window, coverage: Array, paint: Array, shade: Array | None = None) -> None:
        """Lay a colour, (3, n) or (3, 1), times a `shade` (P,) over the window's pixels with the coverage (P,)."""
        touched = np.flatnonzero(coverage > 0)
        index = window.index[touched]
        colours = paint if paint.shape[1] == 1 else paint.take(window.picture[touched], axis=1)
        if shade is not None:
            colours = colours * shade[touched]
        below = self.pixels.take(index, axis=1)
        difference = colours - below
        difference *= coverage[touched]
        below += difference
        self.pixels[:, index] = below


def planes(column: Column) -> Array:
    """A number of each picture as (n, 1, 1) float32, which spreads over its pixels."""
    return column.astype(np.float32)[:, None, None]
