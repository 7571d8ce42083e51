"""Pictures of some identities of a set, a row each, for people to look at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from data_pipeline.images.checks import decoding_problem
from data_pipeline.order.shuffled import permuted
from data_pipeline.source import Source

TILE_PIXELS, GAP_PIXELS, CAPTION_PIXELS = 96, 4, 22
PAPER, INK, HOLE, CROSS = (255, 255, 255), (70, 74, 80), (236, 236, 232), (198, 61, 61)


class Row(NamedTuple):
    """Some images of one identity, which has `num_images`."""

    label: int
    num_images: int
    samples: list[int]


def drawn_rows(source: Source, *, identities: int = 10, images: int = 10, seed: int = 0) -> list[Row]:
    """`identities` of those that have images, drawn by `seed`, and the first `images` of each, by ascending label."""
    present = np.unique(source.labels)
    chosen = permuted(np.arange(min(identities, present.size), dtype=np.int64), present.size, seed, 0)
    rows = []
    for label in np.sort(present[chosen]).tolist():
        samples = np.flatnonzero(source.labels == label)
        rows.append(Row(label, samples.size, samples[:images].tolist()))
    return rows


def strip(source: Source, row: Row) -> Image.Image:
    """The images of one row side by side, each fitted into a square; a cross stands for one that cannot be decoded."""
    return side_by_side([(source, sample) for sample in row.samples])


def side_by_side(images: Sequence[tuple[Source, int]]) -> Image.Image:
    """The images, each a set and a number there, as :func:`strip` shows those of one identity."""
    step = TILE_PIXELS + GAP_PIXELS
    picture = Image.new("RGB", (step * len(images) - GAP_PIXELS, TILE_PIXELS), PAPER)
    for place, (source, sample) in enumerate(images):
        picture.paste(_tile(source, sample), (place * step, 0))
    return picture


def sheet(strips: list[Image.Image], captions: list[str]) -> Image.Image:
    """The strips one below the other, each under its caption."""
    step = CAPTION_PIXELS + TILE_PIXELS + 3 * GAP_PIXELS
    width = max(image.width for image in strips) + 2 * CAPTION_PIXELS
    picture = Image.new("RGB", (width, step * len(strips) + CAPTION_PIXELS), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for place, (image, caption) in enumerate(zip(strips, captions, strict=True)):
        top = place * step + CAPTION_PIXELS // 2
        draw.text((CAPTION_PIXELS, top), caption, fill=INK, font=font)
        picture.paste(image, (CAPTION_PIXELS, top + CAPTION_PIXELS))
    return picture


def _tile(source: Source, sample: int) -> Image.Image:
    try:
        encoded = source.read(sample).tobytes()
    except (OSError, ValueError):
        return _hole()
    if decoding_problem(encoded) is not None:
        return _hole()
    with Image.open(io.BytesIO(encoded)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")  # DALI turns it, too
    return ImageOps.pad(upright, (TILE_PIXELS, TILE_PIXELS), color=HOLE)


def _hole() -> Image.Image:
    tile = Image.new("RGB", (TILE_PIXELS, TILE_PIXELS), HOLE)
    draw, near, far = ImageDraw.Draw(tile), TILE_PIXELS // 3, TILE_PIXELS - TILE_PIXELS // 3
    draw.line((near, near, far, far), fill=CROSS, width=3)
    draw.line((near, far, far, near), fill=CROSS, width=3)
    return tile
