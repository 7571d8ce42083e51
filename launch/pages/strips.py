"""Rows of pictures under headings as one HTML file, in the manner of the evaluation's report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from launch.pages.page import data_uri, jpeg, write_page


class Section(NamedTuple):
    """A heading, a few words on what is shown, and rows of pictures, each with its caption."""

    heading: str
    lead: str
    strips: Sequence[tuple[Image.Image, str]]


def write_strips(path: Path, title: str, tiles: Sequence[tuple[str, str, str]], sections: Sequence[Section]) -> None:
    """Write the page; a tile is a name, a figure and a note."""
    shown = [
        (each.heading, each.lead, [(data_uri(jpeg(picture)), caption) for picture, caption in each.strips])
        for each in sections
    ]
    write_page(path, "strips.html", title=title, tiles=tiles, shown=shown)
