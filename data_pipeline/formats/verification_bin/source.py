"""InsightFace's `.bin` verification sets: pairs of images, of one person or of two.

A file is a pickle of (images, is_same): 2 P encoded images, of which 2 k and 2 k + 1 are pair k, and P booleans. Sets
in use were written by Python 2 and 3 in any protocol, with images as bytes or as NumPy arrays of bytes. They are read
without being run (see `unpickler`), and the encoded images are held: 60 MB for the 12,000 of LFW, which decoded, with
their mirror images, in float32, are 3.6 GB.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.formats.verification_bin.pair_identities import joined_labels, repeated_images
from data_pipeline.formats.verification_bin.unpickler import ByteArray, unpickled
from data_pipeline.source import Source

EXPECTED = "expected a pickle of (list of images as bytes, list of booleans)"


class BinSource(Source):
    """The images of a `.bin` in the order of its pairs, `is_same` of each pair, and labels derived from them.

    Opening reads all of the file; safe from threads and from forked processes from then on. ValueError, naming the file
    and the byte or the image, for whatever is damaged or is more than data; none of it is run.
    """

    is_same: NDArray[np.bool_]

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        self.files = (self._path,)
        images, flags = _parts(unpickled(self._path), self._path)
        self._images = [_image(image, number, self._path) for number, image in enumerate(images)]
        self.is_same = _flags(flags, self._path)
        if len(self._images) != 2 * self.is_same.size or not self._images:
            raise ValueError(
                f"{path} holds {len(self._images)} images and {self.is_same.size} booleans: expected two images a "
                "boolean, and at least one pair; it was cut short or wrongly put together"
            )

    @cached_property
    def labels(self) -> NDArray[np.int64]:  # type: ignore[override]  # costs a read of every image
        """Labels that the file does not have: images of one pair of one person, and images that are the same byte for
        byte, share one. Two labels may be one person's. Reads every image when first asked for, 12 us each."""
        pairs = np.arange(len(self)).reshape(-1, 2)
        return joined_labels(len(self), np.concatenate([pairs[self.is_same], repeated_images(self)]))

    @property
    def contradictions(self) -> NDArray[np.intp]:
        """The pairs of two persons whose images the other pairs make one person's."""
        left, right = self.labels.reshape(-1, 2).T
        return np.flatnonzero(~self.is_same & (left == right))

    def __len__(self) -> int:
        return len(self._images)

    def read(self, sample: int) -> NDArray[np.uint8]:
        """The encoded bytes of one image, read-only."""
        return np.frombuffer(self._images[sample], np.uint8)

    def name(self, sample: int) -> str:
        """The file, and which image of it."""
        return f"{self._path} image {sample} (pair {sample // 2})"


def _parts(value: object, path: Path) -> tuple[Sequence[object], object]:
    match value:
        case [list() | tuple() as images, flags]:
            return images, flags
    raise ValueError(f"{path} is a pickle of something else: {EXPECTED}")


def _image(value: object, number: int, path: Path) -> bytes:
    content = value.content if isinstance(value, ByteArray) and value.kind == "u1" else value
    if not isinstance(content, bytes):
        raise ValueError(f"{path}: image {number} is of type {type(value).__name__}: {EXPECTED}")
    return content


def _flags(value: object, path: Path) -> NDArray[np.bool_]:
    """The booleans, which may be written as such, as 0 and 1, or as an array of bytes."""
    flags = value.content if isinstance(value, ByteArray) else value
    if not isinstance(flags, bytes | list | tuple) or isinstance(value, bytes):
        raise ValueError(f"{path}: its second part is of type {type(value).__name__}: {EXPECTED}")
    for pair, flag in enumerate(flags):
        if not isinstance(flag, int) or flag not in (0, 1):
            shown = flag if isinstance(flag, int) else type(flag).__name__
            raise ValueError(f"{path}: boolean {pair} is {shown}: {EXPECTED}")
    return np.array(list(flags), np.bool_)
