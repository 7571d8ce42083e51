"""A set embedded into a file, shared out over the ranks by parts, so that their number changes no digit."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from data_pipeline.converting.plan import files_mark
from data_pipeline.loader.dali_graph import ImageFormat
from data_pipeline.loader.image_loader import usable_batches
from data_pipeline.sets.fingerprint import fingerprint
from data_pipeline.source import Source
from launch.embedding.parts import PartFolder, Work
from partial_fc import World
from partial_fc.embedding import embed
from partial_fc.inference.embedding_file import EmbeddingFile, Origin, Rows, write_embeddings
from partial_fc.inference.facts import Facts
from partial_fc.inference.model import Numbers
from partial_fc.inference.trained import weights_digest

BATCH = 128  # a part is whole batches: the last digits of an embedding depend on its batch's size
IMAGES_PER_PART = 64 * BATCH


class Embedder(NamedTuple):
    """A network on its device, and how it is asked."""

    network: nn.Module
    facts: Facts
    device: torch.device
    flip: bool

    def rows(self, source: Source, samples: range) -> tuple[Numbers, dict[int, str]]:
        """Unit embeddings of the images that can be used, in their order, and the reasons against the others."""
        side, bad = self.facts.input_size, dict[int, str]()
        place = "cpu" if self.device.type == "cpu" else self.device.index or 0
        form = ImageFormat(side, side, device=place, channels_last=True)
        batches = usable_batches(source, form, samples, batch=BATCH, bad=bad)
        unit_nD, _, _ = embed(self.network, ((b.images, b.labels) for b in batches), self.device, flip=self.flip)
        good = [place for place, sample in enumerate(samples) if sample not in bad]
        return np.asarray(unit_nD.cpu().numpy()[good], np.float32), dict(sorted(bad.items()))


def embed_set(
    embedder: Embedder,
    source: Source,
    images: Path,
    out: Path,
    world: World,
    *,
    images_per_part: int = IMAGES_PER_PART,
) -> dict[int, str]:
    """Embed ``source``, opened from ``images``, into the file ``out``: each rank makes some of the missing parts.

    Returns, on rank 0, the images that cannot be used and why. All ranks must see the folder of ``out``. A collective
    of a number for each part, and a barrier.
    """
    folder = PartFolder(out, work_of(embedder, source, images, images_per_part))
    with folder.held() if world.rank == 0 else nullcontext():
        missing = folder.missing(world, embedder.device)
        done_before, begun = folder.work.num_parts - len(missing), time.monotonic()
        for number, part in enumerate(missing[world.rank :: world.size], start=1):
            folder.keep(part, *embedder.rows(source, folder.work.samples(part)))
            if world.rank == 0:
                done = min(number * world.size, len(missing))
                rate = sum(len(folder.work.samples(each)) for each in missing[:done]) / (time.monotonic() - begun)
                told = f"part {done_before + done} of {folder.work.num_parts}"
                print(f"{told}  {rate:,.0f} images/s", flush=True)
        world.barrier()
        return _joined(folder, source) if world.rank == 0 else {}


def set_embeddings(embedder: Embedder, source: Source, images: Path, out: Path) -> EmbeddingFile:
    """The embeddings in the file ``out``, by this process where they are not there yet.

    ValueError where they are those of another network or set.
    """
    if not out.exists():
        embed_set(embedder, source, images, out, World())
    file, wanted = EmbeddingFile(out), work_of(embedder, source, images, IMAGES_PER_PART).origin
    if replace(file.origin, left_out=(), images=wanted.images) != wanted:
        raise ValueError(
            f"{out} holds embeddings of another network or set than {images}: remove it, or choose another"
        )
    return file


def work_of(embedder: Embedder, source: Source, images: Path, images_per_part: int) -> Work:
    """What is to be done. ValueError for parts that are no whole batches."""
    if images_per_part < BATCH or images_per_part % BATCH:
        raise ValueError(f"{images_per_part} images in a part: expected a multiple of {BATCH}, the size of a batch")
    facts = embedder.facts
    origin = Origin(
        *(weights_digest(embedder.network), facts.input_size, embedder.flip),
        *(str(images.absolute()), len(source), fingerprint(source)),
    )
    labels = f"{zlib.crc32(np.ascontiguousarray(source.labels).data):08x}"
    return Work(origin, files_mark([images]), labels, images_per_part)


def _joined(folder: PartFolder, source: Source) -> dict[int, str]:
    """Write ``out`` of all parts, a part at a time, and remove them; the images that could not be used."""
    work, bad, dimensions, count = folder.work, dict[int, str](), 0, 0
    for part in range(work.num_parts):
        rows, found = folder.read(part)
        count, dimensions = count + len(rows), max(dimensions, rows.shape[1])
        bad |= found
    if not count:
        raise ValueError(f"none of the {len(source):,} images can be used; the first: {source.name(0)}: {bad[0]}")
    origin = replace(work.origin, left_out=sorted(bad))
    write_embeddings(folder.out, (count, dimensions), _rows(folder, source, bad), origin)
    folder.remove()
    return bad


def _rows(folder: PartFolder, source: Source, bad: dict[int, str]) -> Iterator[Rows]:
    for part in range(folder.work.num_parts):
        good: Sequence[int] = [sample for sample in folder.work.samples(part) if sample not in bad]
        if good:
            yield Rows(folder.read(part)[0], source.labels[good], [source.name(sample) for sample in good])
