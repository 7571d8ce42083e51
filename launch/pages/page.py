"""The frame of every page: its template and style sheet lie beside this file.

A page needs no other file and fetches nothing: figures are inline SVG, pictures data URIs, fonts the reader's own;
there is no script. It follows the reader's light or dark setting and fits a telephone.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from launch.writing import write_text

_TEMPLATES = Environment(
    loader=PackageLoader("launch.pages", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["thousands"] = "{:,}".format


def write_page(path: Path, template: str, **values: object) -> None:
    """Write ``template`` with ``values``, which are escaped, into ``path``."""
    write_text(path, _TEMPLATES.get_template(template).render(values))


def jpeg(picture: Image.Image) -> bytes:
    """``picture`` as JPEG, at a quality fit for a page."""
    encoded = io.BytesIO()
    picture.save(encoded, format="JPEG", quality=88)
    return encoded.getvalue()


def data_uri(content: bytes, media_type: str = "image/jpeg") -> str:
    """An encoded picture as the address of an ``<img>``."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
