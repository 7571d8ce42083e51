"""Sets of images made into ``train.rec`` + ``train.idx``: from a folder, from Omniglot's zips, from arithmetic."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipeline.image_files import IMAGE_SUFFIXES, listed
from data_pipeline.jpeg import REFUSALS, check_form, jpeg, reencoded
from data_pipeline.record_set import Encoded, Identity, write_set
from data_pipeline.synthetic import identity_pictures
from data_pipeline.workers import in_order, process_pool

PICTURES_PER_PROCESS = 10_000  # a process takes two seconds to start, as long as it takes to draw about this many
PICTURES_PER_JOB = 256  # drawn together: as many as it takes for most of the time to go into pixels


def pack_folder(
    source: Path, out: Path, *, size: int | None = None, quality: int = 95, workers: int | None = None
) -> None:
    """Pack ``source``, which has one folder of images per identity: labels 0, 1, ... in the order of the names.

    Without ``size`` a JPEG keeps its bytes (but is decoded once, so that a damaged one is found now) and any other
    image becomes a JPEG of its own size. With it every image is cropped to its middle square and resized.
    Hidden files are passed over. ValueError naming the places, after all was looked at, for images that cannot be read,
    folders without images, and files that are neither: nothing is written then.
    """
    check_form(size, quality)
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is not a folder: expected one with a folder of images per identity")
    entries = sorted((entry for entry in os.scandir(source) if not entry.name.startswith(".")), key=lambda e: e.name)
    if stray := [entry.path for entry in entries if not entry.is_dir()]:
        raise ValueError(f"{listed(stray)}: expected folders only, one per identity; move files into theirs, or away")
    if not entries:
        raise ValueError(f"{source} has no folders in it: expected one folder of images per identity")
    identities = (Identity(e.name, partial(_folder, Path(e.path), size, quality)) for e in entries)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        write_set(identities, out, pool, total=len(entries))


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


def pack_synthetic(
    out: Path,
    *,
    identities: int,
    images: int,
    size: int = 64,
    quality: int = 95,
    seed: int = 0,
    first_identity: int = 0,
    workers: int | None = None,
    begin: Callable[[], object] | None = None,
) -> None:
    """Pack faces drawn by arithmetic: ``images`` of each of ``identities`` people, from ``first_identity`` on.

    Two sets of one seed whose ranges of identities do not meet have no person in common. Large sets are drawn by
    several processes, which start anew: a script that calls this needs its ``if __name__ == "__main__"``. Each calls
    ``begin`` first.
    """
    check_form(size, quality)
    if identities < 1 or images < 1:
        raise ValueError(f"got identities={identities} and images={images}: expected at least 1 of each")
    people = range(first_identity, first_identity + identities)
    at_a_time = max(PICTURES_PER_JOB // images, 1)
    jobs = (people[first : first + at_a_time] for first in range(0, identities, at_a_time))
    workers = workers or min(os.cpu_count() or 1, 1 + identities * images // PICTURES_PER_PROCESS)
    with process_pool(workers, begin) as pool, ThreadPoolExecutor(1) as in_turn:
        submitted = in_order(jobs, lambda job: pool.submit(_drawn, job, images, size, quality, seed), 2 * workers)
        drawn = (encoded for _, future in submitted for encoded in future.result())
        # A job is many identities; one thread takes them apart, each call the next of them.
        write_set((Identity(f"synthetic-{seed}-{i}", drawn.__next__) for i in people), out, in_turn, total=identities)


def _folder(folder: Path, size: int | None, quality: int) -> Encoded:
    encoded = Encoded([], [])
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if path.is_dir() or path.suffix.lower() not in IMAGE_SUFFIXES:
            encoded.complaints.append(f"{path} is no image")
            continue
        try:
            encoded.images.append(reencoded(path.read_bytes(), size, quality))
        except REFUSALS as error:
            encoded.complaints.append(f"{path} cannot be read ({error})")
    if not encoded.images and not encoded.complaints:
        encoded.complaints.append(f"{folder} has no images in it")
    return encoded


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


def _drawn(people: range, images: int, size: int, quality: int, seed: int) -> list[Encoded]:
    who, which = np.repeat(people, images), np.tile(np.arange(images), len(people))
    pictures = identity_pictures(who, which, size=size, seed=seed)
    encoded = [jpeg(Image.fromarray(picture), quality, own_tables=True) for picture in pictures]
    return [Encoded(encoded[first : first + images], []) for first in range(0, len(encoded), images)]
