"""Sets of images made into ``train.rec`` + ``train.idx``: from a folder, from Omniglot's zips, from arithmetic.

A packed set is a folder, with the names that arcface_torch's users know: ``train.rec``, ``train.idx``, ``property``
(``num_classes,height,width``) and, beside them, ``identities.tsv``, which says what each label is called.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from rich.progress import track

from data_pipeline.recordio import RecordWriter
from data_pipeline.synthetic import identity_image

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}

Identity = tuple[str, Iterable[bytes]]
"""A name, and the encoded images of it, made as they are asked for."""


def pack_folder(source: Path, out: Path, *, size: int | None = None, quality: int = 95) -> None:
    """Pack ``source``, which has one folder of images per identity: labels 0, 1, ... in the order of the names.

    Without ``size`` a JPEG keeps its bytes and any other image becomes a JPEG of its own size. With it every image is
    cropped to its middle square and resized. ValueError naming the file for an image that cannot be read, and the
    folder where there is nothing to pack.
    """
    folders = sorted(path for path in _listed(source) if path.is_dir())
    if not folders:
        raise ValueError(f"{source} has no folders in it: expected one folder of images per identity")
    stray = [path.name for path in _listed(source) if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES]
    if stray:
        raise ValueError(f"{source} has images beside its folders, such as {stray[0]}: expected each in its identity's")
    files = {folder: sorted(path for path in folder.iterdir() if _is_image(path)) for folder in folders}
    for folder, images in files.items():
        if not images:
            raise ValueError(f"{folder} has no images in it: expected at least one; remove the folder or fill it")
    identities = ((folder.name, (_encoded_file(path, size, quality) for path in files[folder])) for folder in folders)
    _pack(identities, out, total=len(folders), size=size or 0)


def pack_omniglot(zips: list[Path], out: Path, *, size: int = 32, quality: int = 95, rotations: bool = True) -> None:
    """Pack Omniglot's characters straight from its zips; an identity is a character of an alphabet.

    With ``rotations`` every character turned by 90, 180 and 270 degrees counts as three more identities, as is usual
    for this set: labels k·M ... are those turned k times. Images are grey, black on white, as printed.
    """
    characters: list[tuple[str, zipfile.ZipFile, list[str]]] = []
    for path in zips:
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is not a zip file: {error}") from error
        named: dict[str, list[str]] = {}
        for member in sorted(archive.namelist()):
            parts = member.split("/")
            if len(parts) == 4 and parts[3].endswith(".png"):
                named.setdefault(f"{parts[1]}/{parts[2]}", []).append(member)
        if not named:
            raise ValueError(f"{path} holds no images_*/ALPHABET/character*/*.png: expected one of Omniglot's zips")
        characters += [(name, archive, members) for name, members in named.items()]
    turns = range(4 if rotations else 1)
    identities = (
        (f"{name}/{90 * turn}", (_drawing(archive.read(member), turn, size, quality) for member in members))
        for turn in turns
        for name, archive, members in characters
    )
    _pack(identities, out, total=len(turns) * len(characters), size=size)


def pack_synthetic(
    out: Path,
    *,
    identities: int,
    images: int,
    size: int = 64,
    quality: int = 95,
    seed: int = 0,
    first_identity: int = 0,
) -> None:
    """Pack faces drawn by arithmetic: ``images`` of each of ``identities`` people, from ``first_identity`` on.

    Two sets of one seed whose ranges of identities do not meet have no person in common.
    """
    if identities < 1 or images < 1:
        raise ValueError(f"got identities={identities} and images={images}: expected at least 1 of each")
    people = range(first_identity, first_identity + identities)
    drawn = (
        (
            f"synthetic-{seed}-{person}",
            (_jpeg(Image.fromarray(identity_image(person, k, size=size, seed=seed)), quality) for k in range(images)),
        )
        for person in people
    )
    _pack(drawn, out, total=identities, size=size)


def _pack(identities: Iterable[Identity], out: Path, *, total: int, size: int) -> None:
    """Write the set; FileExistsError where ``out`` holds one already, which stays as it is."""
    out.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    with RecordWriter(out / "train.rec") as writer:
        for label, (name, images) in enumerate(track(identities, description=f"packing {out}", total=total)):
            for image in images:
                writer.append(label, image)
            names.append(name)
    (out / "property").write_text(f"{len(names)},{size},{size}\n")
    (out / "identities.tsv").write_text("".join(f"{label}\t{name}\n" for label, name in enumerate(names)))


def _listed(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: expected one with a folder of images per identity")
    return iter(sorted(folder.iterdir()))


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES


def _encoded_file(path: Path, size: int | None, quality: int) -> bytes:
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            if size is None and image.format == "JPEG":
                return content
            picture = image.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}; mend or remove it") from error
    if size is not None:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        box = (left, top, left + side, top + side)
        picture = picture.resize((size, size), Image.Resampling.LANCZOS, box=box)
    return _jpeg(picture, quality)


def _drawing(content: bytes, turn: int, size: int, quality: int) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        turned = np.ascontiguousarray(np.rot90(np.asarray(image.convert("L")), turn))
    return _jpeg(Image.fromarray(turned).resize((size, size), Image.Resampling.BOX), quality)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
