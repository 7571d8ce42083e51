"""Whether a picture is the one that is kept."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

KEPT_WITH = "3.11"  # the matplotlib that drew what is kept; another one draws the same otherwise
_NUMBER = re.compile(r"-?\d+\.\d+")
_MADE_OF_COORDINATES = re.compile(r"\b[pm][0-9a-f]{10}\b")  # the names of clip paths and markers
_POINTS = 2.0  # a rounding to bfloat16 that another processor makes otherwise moves a dot by one


def assert_alike(drawn: Path, kept: Path) -> None:
    """Both SVGs say the same, their coordinates to two points."""
    if not version("matplotlib").startswith(KEPT_WITH):
        pytest.skip(f"{kept.name} was drawn with matplotlib {KEPT_WITH}")
    texts = [_MADE_OF_COORDINATES.sub("name", path.read_text(encoding="utf-8")) for path in (drawn, kept)]
    assert _NUMBER.sub("#", texts[0]) == _NUMBER.sub("#", texts[1]), f"{kept} is not what is drawn: draw it anew"
    here, there = (np.array(_NUMBER.findall(text), dtype=np.float64) for text in texts)
    np.testing.assert_allclose(here, there, rtol=0.0, atol=_POINTS, err_msg=str(kept))
