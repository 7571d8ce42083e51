"""An inspected set as one HTML file that needs nothing else, in the manner of the evaluation's report."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.checking.inspection import Inspection
from launch.pages.style import STYLE_SHEET

MOST_SIZES = 12  # lines of the table of sizes
UNITS = ("bytes", "kB", "MB", "GB", "TB")
STYLE = """
.faults { margin: 0; padding: 0 0 0 20px; } .faults li { margin: 6px 0; overflow-wrap: anywhere; }
.faults li::marker { color: var(--wrong); }
.strip { margin: 0 0 14px; } .strip img { display: block; max-width: 100%; height: auto; border-radius: 7px; }
.strip figcaption { margin: 0 0 4px; font-size: 13px; color: var(--muted); }
.bar { fill: var(--accent); } svg text { fill: var(--muted); font-size: 11px; } svg .value { fill: var(--ink); }
"""


def write_page(
    path: Path, found: Inspection, *, title: str, kind: str, strips: Sequence[Image.Image], captions: Sequence[str]
) -> None:
    """Write the page: counts, what is wrong, images per identity, sizes and formats, and the rows of pictures."""
    looked = "all of them" if found.is_whole else f"{len(found.samples):,} of them, drawn by rule,"
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE_SHEET}{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{html.escape(title)}</h1><p>{html.escape(kind)}: {found.num_images:,} images of "
        f"{found.num_identities:,} identities; {looked} were looked at.</p>{_about_pairs(found)}</header>\n"
        + "\n".join((_tiles(found), _faults(found), _distributions(found), _strips(strips, captions)))
        + "\n</main>\n</body>\n</html>\n"
    )
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def _about_pairs(found: Inspection) -> str:
    if found.pairs is None:
        return ""
    return f"<p>{found.pairs.description}. Labels are {html.escape(found.labels_from or '')}.</p>"


def histogram(images_per_identity: NDArray[np.int64]) -> list[tuple[str, int]]:
    """How many identities have 1, 2, 3-4, 5-8, 9-16, ... images, up to the largest; empty bins included."""
    places = np.ceil(np.log2(images_per_identity)).astype(np.int64)
    counts = np.bincount(places).tolist()
    names = ["1", "2", *(f"{2 ** (place - 1) + 1:,}-{2**place:,}" for place in range(2, len(counts)))]
    return list(zip(names[: len(counts)], counts, strict=True))


def bytes_text(found: Inspection) -> str:
    """The bytes of all images and of one on average; `about` where they are estimated."""
    about = "" if found.is_whole else "about "
    return f"{about}{_bytes(found.num_bytes)}, {_bytes(found.num_bytes / found.num_images)} per image"


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


def _bytes(count: float) -> str:
    place = 0
    while count >= 1000 and place < len(UNITS) - 1:
        count, place = count / 1000, place + 1
    return f"{count:.3g} {UNITS[place]}"


def _tiles(found: Inspection) -> str:
    per_identity = found.images_per_identity
    usual = found.sizes.most_common(1)
    tiles = [
        ("Identities", f"{found.num_identities:,}", f"labels 0 to {found.num_classes - 1:,}"),
        ("Images", f"{found.num_images:,}", bytes_text(found)),
        (
            "Images per identity",
            f"{np.median(per_identity):,.0f}",
            f"the median; {per_identity.min():,} to {per_identity.max():,}, mean {per_identity.mean():,.1f}",
        ),
        ("Size", "{} x {}".format(*usual[0][0]) if usual else "none", sizes_text(found)),
    ]
    cells = [
        f'<div class="tile"><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>' for name, value, note in tiles
    ]
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _faults(found: Inspection) -> str:
    faults = "".join(f"<li>{html.escape(fault)}</li>" for fault in found.findings())
    content = f'<ul class="faults">{faults}</ul>' if faults else '<p class="none">Nothing was found.</p>'
    return f'<section><h2>What is wrong</h2><div class="card">{content}</div></section>'


def _distributions(found: Inspection) -> str:
    sizes = [(f"{width} x {height}", count) for (width, height), count in found.sizes.most_common(MOST_SIZES)]
    others = found.sizes.total() - sum(count for _, count in sizes)
    sizes += [("other sizes", others)] if others else []
    return (
        '<section><h2>Identities and images</h2><div class="wide">'
        '<figure class="card"><figcaption><h3>Identities by their number of images</h3></figcaption>'
        f"{_bars(histogram(found.images_per_identity), 'Identities by their number of images')}</figure>"
        f'<div class="card"><h3>Images looked at</h3>{_table("size in pixels", sizes)}'
        f"{_table('format', found.formats.most_common())}</div></div></section>"
    )


def _table(name: str, rows: Sequence[tuple[str, int]]) -> str:
    lines = "".join(f"<tr><th scope=row>{html.escape(key)}</th><td>{count:,}</td></tr>" for key, count in rows)
    return f"<table><thead><tr><th>{name}</th><th>images</th></tr></thead><tbody>{lines}</tbody></table>"


def _bars(bins: Sequence[tuple[str, int]], label: str) -> str:
    """Horizontal bars with their names and values, as inline SVG in the page's colours."""
    line, left, widest = 22, 110, 300
    top = max(count for _, count in bins)
    bars = []
    for place, (name, count) in enumerate(bins):
        base, length = (
            line * place + 15,
            max(widest * count / top, min(count, 1)),
        )  # one of millions shows
        bars.append(
            f'<text x="{left - 8}" y="{base}" text-anchor="end">{name}</text>'
            f'<rect class="bar" x="{left}" y="{base - 11}" width="{length:.1f}" height="{line - 7}" rx="2"></rect>'
            f'<text class="value" x="{left + length + 6:.1f}" y="{base}">{count:,}</text>'
        )
    view = f"0 0 {left + widest + 90} {line * len(bins) + 4}"
    return f'<svg viewBox="{view}" role="img" aria-label="{label}">{"".join(bars)}</svg>'


def _strips(strips: Sequence[Image.Image], captions: Sequence[str]) -> str:
    figures = [
        f'<figure class="strip"><figcaption>{html.escape(caption)}</figcaption>'
        f'<img src="{_data_uri(image)}" alt="{html.escape(caption)}"></figure>'
        for image, caption in zip(strips, captions, strict=True)
    ]
    return f'<section><h2>Some identities</h2><div class="card">{"".join(figures)}</div></section>'


def _data_uri(picture: Image.Image) -> str:
    encoded = io.BytesIO()
    picture.save(encoded, format="JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"
