"""Files of landmarks: a picture and five points in each line, as IJB's `name_5pts_score.txt` has them.

::

    1.jpg 38.3 51.7 73.5 51.5 56.0 71.7 41.5 92.4 70.7 92.2 0.998

The name, x and y of both eyes, of the tip of the nose and of both corners of the mouth, left in the picture first, in
pixels of the picture; then, in all lines or in none, the score that the detector gave the face. Fields are separated by
tabs, by commas, or by blanks where the first line has neither. A first line without numbers is a header.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

POINTS = 5
EXPECTED = "expected a name, x and y of five points and, in all lines or in none, a score"


class Landmarks(NamedTuple):
    """The pictures' names, their points (n, 5, 2) in pixels, and the detector's scores (n,) where there are some."""

    names: list[str]
    points: NDArray[np.float64]
    scores: NDArray[np.float64] | None


def read_landmarks(path: Path) -> Landmarks:
    """The landmarks in `path`: 4 us a line. ValueError naming the line where one is not as the others."""
    lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    separator = next((mark for mark in "\t," if filled and mark in filled[0][1]), None)
    if filled and _numbers(filled[0][1].split(separator)[1:]) is None:
        filled = filled[1:]
    if not filled:
        raise ValueError(f"{path} names no picture: {EXPECTED}")
    width = len(filled[0][1].split(separator))
    if width not in (1 + 2 * POINTS, 2 + 2 * POINTS):
        raise ValueError(f"{path} line {filled[0][0]} has {width} fields: {EXPECTED}")
    names, values = [], np.empty((len(filled), width - 1))
    for row, (number, line) in enumerate(filled):
        name, *fields = line.split(separator)
        found = _numbers(fields) if len(fields) == width - 1 else None
        if found is None:
            raise ValueError(f"{path} line {number}: {line.strip()[:80]!r}: {EXPECTED}")
        names.append(name.strip())
        values[row] = found
    points = values[:, : 2 * POINTS].reshape(-1, POINTS, 2)
    return Landmarks(names, points, values[:, -1] if width > 1 + 2 * POINTS else None)


def _numbers(fields: list[str]) -> list[float] | None:
    """The fields as numbers; None where one is none, or there is no field."""
    try:
        return [float(field) for field in fields] or None
    except ValueError:
        return None
