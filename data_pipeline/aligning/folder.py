"""A folder of pictures and a file of landmarks, made into a folder of aligned faces."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from data_pipeline.aligning.landmarks import Landmarks, read_landmarks
from data_pipeline.aligning.similarity import SIDE
from data_pipeline.aligning.source import AlignedSource
from data_pipeline.files.packed_texts import PackedTexts
from data_pipeline.files.whole_file import WholeFile
from data_pipeline.formats.folders.file_source import FileSource
from data_pipeline.images.jpeg import check_form, jpeg
from data_pipeline.workers import in_order, progress_bar

AHEAD = 64


def landmarked_files(root: Path, landmarks: Landmarks) -> FileSource:
    """The pictures that `landmarks` name, below `root`, in the order of the file; all of one class."""
    paths = PackedTexts.of(os.fsencode(name) for name in landmarks.names)
    return FileSource(root, paths, np.zeros(len(landmarks.names), np.int64), None)


def align_folder(
    root: Path,
    landmarks_path: Path,
    out: Path,
    *,
    side: int = SIDE,
    quality: int | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Iterator[str]:
    """Writes every picture that the file of landmarks names, aligned, into `out` under its name, as PNG or as JPEG.

    Yields what is wrong with a picture that could not be aligned, a sentence each; the others are written. A face that
    is there already is left as it is, so that the same command goes on where it was ended. ValueError, before anything
    is written, for names that lead out of the folder or that two lines have.
    """
    check_form(side, 95 if quality is None else quality)
    landmarks = read_landmarks(landmarks_path)
    places = _places(landmarks.names, landmarks_path, ".png" if quality is None else ".jpg")
    faces = AlignedSource(landmarked_files(root, landmarks), landmarks.points, side)

    def write(sample: int) -> str | None:
        return _write(faces, sample, out / places[sample], quality)

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool, progress_bar(shown=progress) as bar:
        task = bar.add_task("aligning", total=len(faces))
        for _, complaint in in_order(range(len(faces)), lambda sample: pool.submit(write, sample), AHEAD):
            bar.advance(task)
            if (said := complaint.result()) is not None:
                yield said


def _write(faces: AlignedSource, sample: int, path: Path, quality: int | None) -> str | None:
    """Writes one face; what is wrong with it, or None."""
    if path.exists():
        return None
    try:
        face = Image.fromarray(faces.pixels(sample))
    except (OSError, ValueError) as error:
        return str(error)
    path.parent.mkdir(parents=True, exist_ok=True)
    with WholeFile(path) as file:
        file.write(_png(face) if quality is None else jpeg(face, quality))
    return None


def _png(face: Image.Image) -> bytes:
    buffer = io.BytesIO()
    face.save(buffer, "PNG")
    return buffer.getvalue()


def _places(names: list[str], path: Path, suffix: str) -> list[PurePosixPath]:
    """Where each face goes, below the new folder."""
    found = dict[PurePosixPath, str]()
    for name in names:
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or not inside.name:
            raise ValueError(f"{path} names {name!r}: expected a path within the folder of pictures")
        place = inside.with_suffix(suffix)
        if place in found:
            raise ValueError(f"{path} names both {found[place]!r} and {name!r}, which would be one face: {place}")
        found[place] = name
    return list(found)
