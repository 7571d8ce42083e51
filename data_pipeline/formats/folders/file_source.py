"""Images that are files of their own, whoever lists them."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.files.packed_texts import PackedTexts
from data_pipeline.source import Source

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


class FileSource(Source):
    """The images at `paths` below `root`, of the classes `labels`.

    Holds 16 bytes and the path per image. A read opens, reads and closes one file: safe from threads, in forked and in
    spawned processes. `identities` says what each label is called; None where labels are numbers to begin with.
    """

    def __init__(
        self, root: Path, paths: PackedTexts, labels: NDArray[np.int64], identities: PackedTexts | None
    ) -> None:
        self.root, self.paths, self.labels, self.identities = Path(root), paths, labels, identities
        self.files: Sequence[Path] = (self.root,)

    def path(self, sample: int) -> str:
        """Where one image lies."""
        return os.path.join(self.root, self.paths[sample])

    def read(self, sample: int) -> NDArray[np.uint8]:
        """The encoded bytes of one image, read-only. ValueError for an empty file, OSError for one that is not there;
        both say where the image is named."""
        try:
            with open(self.path(sample), "rb", buffering=0) as file:
                encoded = file.read()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise FileNotFoundError(f"{self.name(sample)} is missing") from error
            raise OSError(error.errno, f"{self.name(sample)} cannot be read: {error.strerror}") from error
        if not encoded:
            raise ValueError(f"{self.name(sample)} is an empty file; expected encoded image bytes")
        return np.frombuffer(encoded, np.uint8)

    def name(self, sample: int) -> str:
        """The path of one image."""
        return self.path(sample)


def pictures(paths: Sequence[Path]) -> FileSource:
    """Some image files as a set, without identities: each has its own label."""
    packed = PackedTexts.of(os.fsencode(path) for path in paths)
    return FileSource(Path(), packed, np.arange(len(paths), dtype=np.int64), None)
