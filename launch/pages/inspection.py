"""An inspected set as one HTML file, in the manner of the evaluation's report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.checking.inspection import Inspection
from launch.pages.figures import bar_figure
from launch.pages.page import data_uri, jpeg, write_page
from launch.units import bytes_text

MOST_SIZES = 12  # lines of the table of sizes


def write_inspection(
    path: Path, found: Inspection, *, title: str, kind: str, strips: Sequence[Image.Image], captions: Sequence[str]
) -> None:
    """Write the page: counts, what is wrong, images per identity, sizes and formats, and the rows of pictures."""
    write_page(
        path,
        "inspection.html",
        title=title,
        kind=kind,
        found=found,
        tiles=_tiles(found),
        faults=list(found.findings()),
        bars=bar_figure(histogram(found.images_per_identity), "Identities by their number of images"),
        sizes=_sizes(found),
        formats=[(name, f"{count:,}") for name, count in found.formats.most_common()],
        strips=[(data_uri(jpeg(image)), caption) for image, caption in zip(strips, captions, strict=True)],
    )


def histogram(images_per_identity: NDArray[np.int64]) -> list[tuple[str, int]]:
    """How many identities have 1, 2, 3-4, 5-8, 9-16, ... images, up to the largest; empty bins included."""
    places = np.ceil(np.log2(images_per_identity)).astype(np.int64)
    counts = np.bincount(places).tolist()
    names = ["1", "2", *(f"{2 ** (place - 1) + 1:,}-{2**place:,}" for place in range(2, len(counts)))]
    return list(zip(names[: len(counts)], counts, strict=True))


def all_bytes_text(found: Inspection) -> str:
    """The bytes of all images and of one on average; `about` where they are estimated."""
    about = "" if found.is_whole else "about "
    return f"{about}{bytes_text(found.num_bytes)}, {bytes_text(found.num_bytes / found.num_images)} per image"


def sizes_text(found: Inspection) -> str:
    """The one size, or the most frequent ones and the range."""
    sizes = found.sizes
    if not sizes:
        return "none could be read"
    if len(sizes) == 1:
        return "{} x {}, all".format(*next(iter(sizes)))
    widths, heights = (sorted(side) for side in zip(*sizes, strict=True))
    usual, count = sizes.most_common(1)[0]
    return (
        f"{len(sizes):,} of them, {widths[0]} to {widths[-1]} wide and {heights[0]} to {heights[-1]} high; "
        f"most often {usual[0]} x {usual[1]} ({count / sizes.total():.0%})"
    )


def _tiles(found: Inspection) -> list[tuple[str, str, str]]:
    per_identity = found.images_per_identity
    spread = f"the median; {per_identity.min():,} to {per_identity.max():,}, mean {per_identity.mean():,.1f}"
    usual = found.sizes.most_common(1)
    return [
        ("Identities", f"{found.num_identities:,}", f"labels 0 to {found.num_classes - 1:,}"),
        ("Images", f"{found.num_images:,}", all_bytes_text(found)),
        ("Images per identity", f"{np.median(per_identity):,.0f}", spread),
        ("Size", "{} x {}".format(*usual[0][0]) if usual else "none", sizes_text(found)),
    ]


def _sizes(found: Inspection) -> list[tuple[str, str]]:
    """The most frequent sizes and how many images have them, then how many have another."""
    usual = found.sizes.most_common(MOST_SIZES)
    others = found.sizes.total() - sum(count for _, count in usual)
    rows = [(f"{width} x {height}", f"{count:,}") for (width, height), count in usual]
    return [*rows, ("other sizes", f"{others:,}")] if others else rows
