"""One part of a conversion: its images read, encoded anew if asked for, and written into a file of their own."""

from __future__ import annotations

import threading
import zlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count

import numpy as np
from numpy.typing import NDArray

from data_pipeline.converting.plan import ConversionPlan
from data_pipeline.converting.work_folder import COLUMNS, Done, WorkFolder
from data_pipeline.files.whole_file import WholeFile
from data_pipeline.formats.recordio.layout import image_record
from data_pipeline.formats.tar.writer import TarWriter
from data_pipeline.images.jpeg import REFUSALS, reencoded
from data_pipeline.read_ahead import ReadAhead

CHUNK_IMAGES, CHUNK_BYTES = 256, 8 << 20  # held in memory at a time, whichever is reached first
NO_BOUND = 1 << 62
LEAVE_OUT = "To leave such images out: the list of `partial-fc verify`, by --quarantine"
Append = Callable[[int, bytes], int]  # a label and an image; the bytes that its record has
Encode = Callable[[list[bytes]], list[bytes | str]]


class Stopped(Exception):  # noqa: N818  it is no error of this part
    """Another part failed, or the run was interrupted."""


class PartWriter:
    """Writes parts, several at a time from as many threads; `encode` is None where images keep their bytes."""

    def __init__(
        self, plan: ConversionPlan, folder: WorkFolder, encode: Encode | None, written: Callable[[int], None]
    ) -> None:
        self._plan, self._folder = plan, folder
        self._encode, self._written = encode, written
        self._read_ahead = ReadAhead(plan.source)
        self._stop = threading.Event()

    def write(self, part: int) -> Done:
        """A part's manifest, which an earlier run may have left; until it is there the part is written."""
        found = self._folder.done(part)
        if found is not None:
            self._written(found.images)
            return found
        sizes, checksums = array("q"), array("I")
        labels = self._plan.labels(part).tolist()
        samples = self._plan.samples(part)
        with self._appending(part) as append:
            for chunk, images in self._chunks(samples):
                for at, image in zip(chunk, self._encoded(samples[chunk.start : chunk.stop], images), strict=True):
                    try:
                        sizes.append(append(labels[at], image))
                    except ValueError as error:
                        raise ValueError(f"{self._name(samples[at])}: {error}. {LEAVE_OUT}") from error
                    checksums.append(zlib.crc32(image))
                self._written(len(chunk))
        columns = np.empty(len(samples), COLUMNS)
        columns["record_bytes"], columns["crc32"] = sizes, checksums
        return self._folder.keep(part, columns)

    def stop(self) -> None:
        """Has all that is being written given up soon: `Stopped`."""
        self._stop.set()

    def _chunks(self, samples: NDArray[np.int64]) -> Iterator[tuple[range, list[bytes]]]:
        """Where some images stand in the part, and their bytes as they are in the source."""
        first, size_bytes, images = 0, 0, list[bytes]()
        for at, sample in enumerate(samples.tolist()):
            if self._stop.is_set():
                raise Stopped
            if self._plan.seed is not None and at % CHUNK_IMAGES == 0:
                self._read_ahead.ask(samples[at + CHUNK_IMAGES if at else 0 : at + 2 * CHUNK_IMAGES])
            images.append(self._image(sample))
            size_bytes += len(images[-1])
            if len(images) == CHUNK_IMAGES or size_bytes >= CHUNK_BYTES:
                yield range(first, at + 1), images
                first, size_bytes, images = at + 1, 0, []
        if images:
            yield range(first, len(samples)), images

    def _image(self, sample: int) -> bytes:
        try:
            image = self._plan.source.read(sample).tobytes()
        except (OSError, ValueError) as error:
            raise ValueError(f"{error}. {LEAVE_OUT}") from error
        if problem := self._plan.checksum_problem(sample, image):
            raise ValueError(f"{self._name(sample)}: {problem}. {LEAVE_OUT}")
        return image

    def _encoded(self, samples: NDArray[np.int64], images: list[bytes]) -> Iterator[bytes]:
        if self._encode is None:
            yield from images
            return
        for sample, image in zip(samples.tolist(), self._encode(images), strict=True):
            if isinstance(image, str):
                raise ValueError(f"{self._name(sample)} cannot be encoded anew: {image}. {LEAVE_OUT}")
            yield image

    def _name(self, sample: int) -> str:
        return self._plan.source.name(sample)

    def _appending(self, part: int) -> AbstractContextManager[Append]:
        places = self._plan.places(part)
        if self._plan.to == "rec":
            return _records(self._folder, part, places)
        return _shard(self._folder, part, places)


def encoded_anew(images: list[bytes], size: int, quality: int) -> list[bytes | str]:
    """Images as JPEGs of `size` pixels a side, or why one cannot be made into that; runs in another process."""
    return [_encoded_or_reason(image, size, quality) for image in images]


def _encoded_or_reason(image: bytes, size: int, quality: int) -> bytes | str:
    try:
        return reencoded(image, size, quality)
    except REFUSALS as error:
        return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _records(folder: WorkFolder, part: int, places: range) -> Iterator[Append]:
    keys = count(places.start + 1)
    with WholeFile(folder.records(part)) as file:
        yield lambda label, image: file.write(image_record(label, next(keys), image))


@contextmanager
def _shard(folder: WorkFolder, part: int, places: range) -> Iterator[Append]:
    (folder.set / f"shard-{part:06d}.tar").unlink(missing_ok=True)  # of a run killed before it could note it
    with TarWriter(
        folder.set, images_per_shard=len(places), bytes_per_shard=NO_BOUND, first_shard=part, first_key=places.start
    ) as writer:

        def append(label: int, image: bytes) -> int:
            writer.append(label, image)
            return len(image)

        yield append
