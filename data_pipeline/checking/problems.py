"""Every image of a set looked at once, by several processes, in bounded memory.

One process reads, in the order of the samples, which is that of the file, and hands chunks of encoded bytes to workers
that know nothing of the set; so a set of any kind will do, and of any size. For an image of 5 kB and 112 pixels that
costs 11 us of a core, Pillow's decode 160 us and DALI's 120 us. Two threads that decode hinder each other: Pillow's
take 220 us where one needs 155.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from data_pipeline.checking.checksums import Checksums
from data_pipeline.images.checks import LARGEST_PIXELS, decoding_problem, image_problem
from data_pipeline.source import Source
from data_pipeline.workers import in_order, process_pool, progress_bar

if TYPE_CHECKING:
    from data_pipeline.checking.training_decoder import TrainingDecoder

CHUNK_IMAGES, CHUNK_BYTES = 256, 8 << 20  # of a chunk, whichever is reached first
CHUNKS_AHEAD = 2  # per worker: read and not yet looked at
IMAGES_PER_PROCESS = 5000  # a process takes one to two seconds to start, as long as another takes to decode as many


class Problem(NamedTuple):
    """A sample and what is wrong with it, `kind: how it was seen` (see `checks`)."""

    sample: int
    reason: str


class Chunk(NamedTuple):
    """Consecutive samples: the encoded bytes of each, or why they could not be read or are not what was written."""

    first: int
    images: list[bytes | str]


def problems(
    source: Source,
    *,
    checksums: Checksums | None = None,
    fast: bool = False,
    workers: int | None = None,
    largest_pixels: int = LARGEST_PIXELS,
    progress: bool = False,
) -> Iterator[Problem]:
    """The samples that training could not use, ascending, as they are found.

    Each image is decoded in one of `workers` processes, a single worker being a thread: by Pillow, which is strict, and
    by DALI, as training does it. With `fast` headers and
    outlines are read only (see `checks`), in threads, since reading is then most of the work. Either way an image whose
    bytes are not those of its checksum is a problem. Unless given, there are as many workers as cores, or fewer for a
    small set. A script that calls this needs its `if __name__ == "__main__"`. An image whose decoding kills a process
    is a problem like others, not the end.
    """
    bound = Image.MAX_IMAGE_PIXELS or largest_pixels
    if not 1 <= largest_pixels <= bound:
        raise ValueError(f"largest_pixels {largest_pixels}: expected 1 to {bound}, above which Pillow suspects a bomb")
    if workers is not None and workers < 1:
        raise ValueError(f"{workers} workers: expected at least 1")
    workers = workers or _fitting_workers(len(source), fast)
    looked_at = (_from_headers if fast else _from_pixels)(source, checksums, workers, largest_pixels)
    return _in_turn(looked_at, len(source), progress)


def _fitting_workers(images: int, fast: bool) -> int:
    cores = os.cpu_count() or 1
    return cores if fast else min(cores, 1 + images // IMAGES_PER_PROCESS)


def _in_turn(looked_at: Iterator[tuple[int, list[str | None]]], total: int, progress: bool) -> Iterator[Problem]:
    with progress_bar(shown=progress) as bar:
        task = bar.add_task("verifying", total=total)
        for first, reasons in looked_at:
            yield from (Problem(first + at, reason) for at, reason in enumerate(reasons) if reason is not None)
            bar.advance(task, len(reasons))


def _from_headers(
    source: Source, checksums: Checksums | None, workers: int, largest_pixels: int
) -> Iterator[tuple[int, list[str | None]]]:
    def reasons(samples: range) -> list[str | None]:
        found = (_image_or_reason(source, checksums, sample) for sample in samples)
        return [each if isinstance(each, str) else image_problem(each, largest_pixels) for each in found]

    parts = (range(at, min(at + CHUNK_IMAGES, len(source))) for at in range(0, len(source), CHUNK_IMAGES))
    with ThreadPoolExecutor(workers) as pool:
        for part, future in in_order(parts, lambda part: pool.submit(reasons, part), workers * CHUNKS_AHEAD):
            yield part.start, future.result()


def _from_pixels(
    source: Source, checksums: Checksums | None, workers: int, largest_pixels: int
) -> Iterator[tuple[int, list[str | None]]]:
    with Decoders(workers, largest_pixels) as decoders:
        for chunk, future in in_order(chunks(source, checksums), decoders.submit, workers * CHUNKS_AHEAD):
            yield chunk.first, decoders.reasons(chunk, future)


def chunks(source: Source, checksums: Checksums | None = None) -> Iterator[Chunk]:
    """All of a set, some images at a time, none of which is held here once it was given out."""
    first, images, size_bytes = 0, list[bytes | str](), 0
    for sample in range(len(source)):
        images.append(_image_or_reason(source, checksums, sample))
        size_bytes += len(images[-1])
        if len(images) == CHUNK_IMAGES or size_bytes >= CHUNK_BYTES:
            yield Chunk(first, images)
            first, images, size_bytes = sample + 1, [], 0
    if images:
        yield Chunk(first, images)


def _image_or_reason(source: Source, checksums: Checksums | None, sample: int) -> bytes | str:
    try:
        encoded = source.read(sample).tobytes()
    except (OSError, ValueError) as error:
        return f"cannot be read: {' '.join(str(error).split())}"
    return (checksums.problem(sample, encoded) if checksums else None) or encoded


class Decoders:
    """Workers that decode chunks. One that dies is replaced, and its images are tried one by one."""

    def __init__(self, workers: int, largest_pixels: int) -> None:
        self._workers, self._largest_pixels = workers, largest_pixels
        self._pool = process_pool(workers)
        self._alone: Executor | None = None

    def submit(self, chunk: Chunk) -> Future[list[str | None]]:
        """What is wrong with each image of `chunk`, some time later."""
        try:
            return self._pool.submit(_reasons, chunk.images, self._largest_pixels)
        except BrokenProcessPool:
            self._pool = process_pool(self._workers)
            return self._pool.submit(_reasons, chunk.images, self._largest_pixels)

    def reasons(self, chunk: Chunk, submitted: Future[list[str | None]]) -> list[str | None]:
        """What is wrong with each image of `chunk`, which was submitted."""
        try:
            return submitted.result()
        except BrokenProcessPool:  # of every chunk that was under way one only is to blame, but which?
            return [self._reason_alone(image) for image in chunk.images]

    def _reason_alone(self, image: bytes | str) -> str | None:
        self._alone = self._alone or ProcessPoolExecutor(1, get_context("spawn"))
        try:
            return self._alone.submit(_reasons, [image], self._largest_pixels).result()[0]
        except BrokenProcessPool:
            self._alone = None
            return "cannot be decoded: the process that tried was killed (a crash of the decoder, or lack of memory)"

    def __enter__(self) -> Decoders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in (self._pool, self._alone):
            if pool is not None:
                pool.shutdown(cancel_futures=True)


def _reasons(images: list[bytes | str], largest_pixels: int) -> list[str | None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow finds odd and decodes all the same would be a line per image
        found = [image if isinstance(image, str) else decoding_problem(image, largest_pixels) for image in images]
    usable = {at: image for at, image in enumerate(images) if found[at] is None and isinstance(image, bytes)}
    for at in _refused_by_dali(usable):
        found[at] = f"cannot be decoded: DALI, which decodes in training, refuses its {len(images[at]):,} bytes"
    return found


def _refused_by_dali(images: dict[int, bytes]) -> list[int]:
    if not images:
        return []
    places = list(images)
    refused = _training_decoder().refused([np.frombuffer(image, np.uint8) for image in images.values()])
    return [places[at] for at in refused]


@cache
def _training_decoder() -> TrainingDecoder:
    """The decoder of this process, made when it has an image to decode: torch and DALI are slow to import."""
    from data_pipeline.checking.training_decoder import TrainingDecoder

    return TrainingDecoder(CHUNK_IMAGES)
