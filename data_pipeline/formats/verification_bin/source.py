"""InsightFace's `.bin` verification sets: pairs of images, of one person or of two.

A file is a pickle of (images, is_same): 2 P encoded images, of which 2 k and 2 k + 1 are pair k, and P booleans. Sets
in use were written by Python 2 and 3 in any protocol, with images as bytes or as NumPy arrays of bytes. They are read
without being run (see `pickle_walk`) and image by image: decoded at once, with their mirror images, in float32, the
12,000 of LFW are 3.6 GB.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.files.byte_file import ByteFile
from data_pipeline.formats.verification_bin.pair_identities import joined_labels, repeated_images
from data_pipeline.formats.verification_bin.pickle_values import Array, Coding, Content, Kind, Value, decoded, kind_of
from data_pipeline.formats.verification_bin.pickle_walk import pickled_value
from data_pipeline.source import Source

MOST_FLAGS_BYTES = 1 << 26  # of is_same written as one array: whatever is longer has more pairs than opcodes could name
EXPECTED = "expected a pickle of (list of images as bytes, list of booleans)"


class BinSource(Source):
    """The images of a `.bin` in the order of its pairs, `is_same` of each pair, and labels derived from them.

    Opening walks over the file once and keeps 17 bytes per image. Reading is one `pread`: safe from threads and from
    forked processes. ValueError, naming the file and the byte or the image, for whatever is damaged or is more than
    data; none of it is run.
    """

    is_same: NDArray[np.bool_]

    def __init__(self, path: Path) -> None:
        self._file = ByteFile(Path(path))
        images, flags = _parts(pickled_value(self._file), self._file.path)
        contents = [_image(image, number, self._file.path) for number, image in enumerate(images)]
        self._starts = np.array([content.start for content in contents], np.int64)
        self._sizes = np.array([content.size for content in contents], np.int64)
        self._codings = np.array([content.coding for content in contents], np.uint8)
        self.is_same = _flags(flags, self._file)
        if len(contents) != 2 * self.is_same.size or not contents:
            raise ValueError(
                f"{path} holds {len(contents)} images and {self.is_same.size} booleans: expected two images a boolean, "
                "and at least one pair; it was cut short or wrongly put together"
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
        return self._starts.size

    def read(self, sample: int) -> NDArray[np.uint8]:
        """The encoded bytes of one image, read-only."""
        raw = self._file.bytes_at(int(self._starts[sample]), int(self._sizes[sample]))
        try:
            return np.frombuffer(decoded(raw, Coding(self._codings[sample])), np.uint8)
        except ValueError as error:
            raise ValueError(f"{self.name(sample)} is damaged ({error}): copy the file again") from error

    def name(self, sample: int) -> str:
        """The file, and which image of it."""
        return f"{self._file.path} image {sample} (pair {sample // 2}, byte {self._starts[sample]})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_file": self._file.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._file = ByteFile(state["_file"])


def _parts(value: Value, path: Path) -> tuple[Sequence[Value], Value]:
    match value:
        case [list() | tuple() as images, flags]:
            return images, flags
    raise ValueError(f"{path} is a pickle of something else: {EXPECTED}")


def _image(value: Value, number: int, path: Path) -> Content:
    content = value.data if isinstance(value, Array) and value.kind == Kind("u1") else value
    if not isinstance(content, Content):
        raise ValueError(f"{path}: image {number} is of type {kind_of(value)}: {EXPECTED}")
    if content.size == 0 or (content.coding == Coding.QUOTED and content.size <= 2):
        raise ValueError(f"{path}: image {number} is empty: {EXPECTED}")
    return content


def _flags(value: Value, file: ByteFile) -> NDArray[np.bool_]:
    """The booleans, which may be written as such, as 0 and 1, or as an array of bytes."""
    if isinstance(value, Array) and value.data is not None and value.data.size <= MOST_FLAGS_BYTES:
        raw = file.bytes_at(value.data.start, value.data.size)
        value = list(decoded(raw, value.data.coding))
    if not isinstance(value, list | tuple):
        raise ValueError(f"{file.path}: its second part is of type {kind_of(value)}: {EXPECTED}")
    for pair, flag in enumerate(value):
        if not isinstance(flag, int) or flag not in (0, 1):
            shown = flag if isinstance(flag, int) else kind_of(flag)
            raise ValueError(f"{file.path}: boolean {pair} is {shown}: {EXPECTED}")
    return np.array(value, np.bool_)
