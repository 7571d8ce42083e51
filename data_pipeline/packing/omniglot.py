"""Omniglot's zips, made into a `.rec`."""

from __future__ import annotations

import io
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from data_pipeline.images.jpeg import check_form, jpeg
from data_pipeline.packing.record_set import Encoded, Identity, write_set


def pack_omniglot(
    zips: list[Path],
    out: Path,
    *,
    size: int = 32,
    quality: int = 95,
    rotations: bool = True,
    workers: int | None = None,
) -> None:
    """Pack Omniglot's characters straight from its zips; an identity is a character of an alphabet.

    With ``rotations`` every character turned by 90, 180 and 270 degrees counts as three more identities, as is usual
    for this set: of M characters, labels k·M to (k+1)·M - 1 are those turned k times. Images are grey, black on white.
    """
    check_form(size, quality)
    drawings: dict[str, list[bytes]] = {}
    for path in zips:
        characters = _characters(path)
        if twice := characters.keys() & drawings.keys():
            raise ValueError(f"{path} holds {min(twice)}, which another of the zips holds too: expected each zip once")
        drawings |= characters
    turns = range(4 if rotations else 1)
    identities = (
        Identity(f"{name}/{90 * turn}", partial(_turned, images, turn, size, quality))
        for turn in turns
        for name, images in drawings.items()
    )
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        write_set(identities, out, pool, total=len(turns) * len(drawings))


def _characters(path: Path) -> dict[str, list[bytes]]:
    """The PNGs of each ``ALPHABET/characterNN`` of one of Omniglot's zips, in the order of their names."""
    characters: dict[str, list[bytes]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in sorted(archive.namelist()):
                match member.split("/"):
                    case [_, alphabet, character, file] if file.endswith(".png"):
                        characters.setdefault(f"{alphabet}/{character}", []).append(archive.read(member))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} cannot be read as a zip file: {error}") from error
    if not characters:
        raise ValueError(f"{path} holds no images_*/ALPHABET/characterNN/*.png: expected one of Omniglot's zips")
    return characters


def _turned(drawings: list[bytes], turn: int, size: int, quality: int) -> Encoded:
    return Encoded([_drawing(drawing, turn, size, quality) for drawing in drawings], [])


def _drawing(content: bytes, turn: int, size: int, quality: int) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        turned = image.convert("L").rotate(90 * turn)  # of a multiple of 90 degrees: exact
    return jpeg(turned.resize((size, size), Image.Resampling.BOX), quality)
