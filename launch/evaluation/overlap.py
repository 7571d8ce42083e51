"""Whom and what a held-out set shares with the training set: identities by name, images by their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.complaints import listed
from data_pipeline.formats.verification_bin.source import BinSource
from data_pipeline.sets.identities import label_names
from data_pipeline.sets.joined import joined_sets
from data_pipeline.source import Source
from launch.assembly.data import on_disk, open_training_data, training_paths
from launch.config.data import DataConfig
from partial_fc import World


class Overlap(NamedTuple):
    """The names that both sets have, and the held-out samples whose bytes are those of some training image."""

    names: list[str]
    samples: list[int]

    def to_json(self) -> dict[str, list[str] | int]:
        """What an evaluation's file says of it."""
        return {"identities": self.names, "images": len(self.samples)}

    def sentences(self, held_out: Source) -> list[str]:
        """What is shared, a sentence each, with some of it by name; nothing where nothing is."""
        said = []
        if self.names:
            said.append(
                f"{len(self.names):,} identities have the name of one that is trained on ({listed(self.names)})"
            )
        if self.samples:
            shown = listed([held_out.name(sample) for sample in self.samples])
            said.append(
                f"{len(self.samples):,} images are the same, byte for byte, as one that is trained on ({shown})"
            )
        return said


def overlap(
    path: Path, held_out: Source, section: DataConfig, seed: int, world: World, device: torch.device
) -> Overlap:
    """What the held-out set in ``path`` and the training set of ``section`` share; see :func:`shared_images`."""
    trained = open_training_data(section, seed)
    # A verification set knows nobody's name: a list beside it is another set's.
    names = [] if isinstance(held_out, BinSource) else shared_names(path, held_out, training_paths(section), trained)
    return Overlap(names, shared_images(held_out, trained, world, device))


def shared_names(path: Path, held_out: Source, trained_paths: Sequence[Path], trained: Source) -> list[str]:
    """The names of identities that both sets have, sorted; sets whose names are numbers share none that is known."""
    parts = joined_sets(on_disk(trained))
    paths = trained_paths if len(parts) == len(trained_paths) else [None] * len(parts)
    names = [names_in_words(part, at) for part, at in zip(parts, paths, strict=True)]
    return sorted(names_in_words(held_out, path) & set().union(*names))


def names_in_words(source: Source, path: Path | None) -> set[str]:
    """What the identities are called; empty where the names are numbers, which another set may give to others."""
    names = set(label_names(source, path).values())
    return set() if all(name.isdecimal() for name in names) else names


def shared_images(held_out: Source, trained: Source, world: World, device: torch.device) -> list[int]:
    """The samples of ``held_out`` whose bytes are those of some image of ``trained``, on every rank.

    Each rank reads all of ``held_out`` and its share of ``trained``: 10 us an image and what the disk takes. An image
    that cannot be read is like no other. Talks: one all-reduce of a byte for each held-out image.
    """
    marks = _marks(held_out, range(len(held_out)))
    first, end = (len(trained) * part // world.size for part in (world.rank, world.rank + 1))
    found = np.isin(marks, np.unique(_marks(trained, range(first, end)))) & (marks != 0)
    hits = world.all_sum(torch.from_numpy(found.astype(np.int32)).to(device))
    return [int(sample) for sample in hits.nonzero().flatten().tolist()]


def _marks(source: Source, samples: range) -> NDArray[np.uint64]:
    """64 bits of a hash of each image's bytes; 0 for one that cannot be read."""
    marks = np.zeros(len(samples), np.uint64)
    for place, sample in enumerate(samples):
        try:
            digest = hashlib.blake2b(source.read(sample).tobytes(), digest_size=8).digest()
        except (OSError, ValueError):
            continue
        marks[place] = int.from_bytes(digest, "little")
    return marks
