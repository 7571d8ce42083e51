"""People drawn by arithmetic, made into a `.rec`."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipeline.images.jpeg import check_form, jpeg
from data_pipeline.packing.record_set import Encoded, Identity, write_set
from data_pipeline.synthetic.people import identity_pictures
from data_pipeline.workers import in_order, process_pool

PICTURES_PER_PROCESS = 10_000  # a process takes two seconds to start, as long as it takes to draw about this many
PICTURES_PER_JOB = 256  # drawn together: as many as it takes for most of the time to go into pixels


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


def _drawn(people: range, images: int, size: int, quality: int, seed: int) -> list[Encoded]:
    who, which = np.repeat(people, images), np.tile(np.arange(images), len(people))
    pictures = identity_pictures(who, which, size=size, seed=seed)
    encoded = [jpeg(Image.fromarray(picture), quality, own_tables=True) for picture in pictures]
    return [Encoded(encoded[first : first + images], []) for first in range(0, len(encoded), images)]
