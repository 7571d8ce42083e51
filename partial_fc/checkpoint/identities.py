"""Whose each class row is: a row finds its identity again, under whatever label and on whatever rank it is by now.

Beside its rows each rank saves ``row.identity``, ``(c,)`` int64: a key of each row's identity, equal for the same
identity in every set and different for all others. A checkpoint without it is of labels alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from partial_fc.checkpoint.layout import CheckpointFolder, Manifest

IDENTITY = "row.identity"
_BLOCK_BYTES = 64 << 20


class RowCounts(NamedTuple):
    """How many class rows, of all ranks, were kept, began anew, and were left behind."""

    kept: int
    new: int
    removed: int

    def __str__(self) -> str:
        return f"{self.kept:,} kept, {self.new:,} new, {self.removed:,} removed"


class SavedRows(NamedTuple):
    """Rows of one file by their places in it, which rise, and the columns of this rank's shard that they are for."""

    file: Path
    places_m: Int[Tensor, " m"]
    columns_m: Int[Tensor, " m"]


def has_identities(checkpoint: CheckpointFolder) -> bool:
    """Whether a checkpoint says whose its rows are."""
    manifest = checkpoint.manifest()
    if not manifest.world_size:
        return False
    with _opened(checkpoint, manifest, checkpoint.rank(0, manifest.world_size)) as tensors:
        return IDENTITY in set(tensors.keys())


def compared(checkpoint: CheckpointFolder, identities_C: Int[Tensor, " C"]) -> RowCounts:
    """What would become of the rows of a checkpoint that says whose they are. Reads 8 bytes a class."""
    manifest = checkpoint.manifest()
    files = [checkpoint.rank(rank, manifest.world_size) for rank in range(manifest.world_size)]
    saved_C = torch.cat([_saved_identities(checkpoint, manifest, file) for file in files])
    kept = int(torch.isin(saved_C, identities_C).sum())
    return RowCounts(kept, len(identities_C) - kept, len(saved_C) - kept)


def rows_by_label(checkpoint: CheckpointFolder, shard: range) -> list[SavedRows]:
    """The rows of the classes in ``shard``, where a class is whoever had its label."""
    manifest, found = checkpoint.manifest(), []
    for rank, (first, stop) in enumerate(manifest.classes):
        both = range(max(first, shard.start), min(stop, shard.stop))
        if both:
            places_m = torch.arange(both.start - first, both.stop - first)
            found.append(
                SavedRows(checkpoint.rank(rank, manifest.world_size), places_m, places_m + first - shard.start)
            )
    return found


def rows_by_identity(checkpoint: CheckpointFolder, shard: range, identities_c: Int[Tensor, " c"]) -> list[SavedRows]:
    """The rows of the identities of ``shard``, wherever they lie; those that are new have none.

    Where all identities have the labels that they had, nothing is searched. A search takes about 1 us of a CPU and 50
    bytes of memory a class of this rank, and reads 8 bytes a class of all.
    """
    manifest, same = checkpoint.manifest(), rows_by_label(checkpoint, shard)
    if sum(len(rows.columns_m) for rows in same) == len(identities_c) and all(
        torch.equal(_saved_identities(checkpoint, manifest, rows.file)[rows.places_m], identities_c[rows.columns_m])
        for rows in same
    ):
        return same
    sought_c, columns_c = identities_c.sort()
    found = []
    for rank in range(manifest.world_size):
        file = checkpoint.rank(rank, manifest.world_size)
        saved_m = _saved_identities(checkpoint, manifest, file)
        nearest_m = torch.searchsorted(sought_c, saved_m).clamp_(max=len(sought_c) - 1)
        places_m = (sought_c[nearest_m] == saved_m).nonzero().squeeze(1)
        if len(places_m):
            found.append(SavedRows(file, places_m, columns_c[nearest_m[places_m]]))
    return found


def copy_rows(saved: Any, rows: SavedRows, target_c: Tensor) -> None:
    """Bring ``rows`` of a tensor in a file, a slice of safetensors', to their columns in ``target``, ``(c, ...)``.

    Goes through the file once, whatever the order of the columns, with memory for 64 MiB of it.
    """
    height = max(_BLOCK_BYTES // target_c[0].nbytes, 1)
    edges = torch.arange(0, int(rows.places_m[-1]) + 1 + height, height)
    for start, stop in pairwise(torch.searchsorted(rows.places_m, edges).tolist()):
        if start == stop:
            continue
        places_m = rows.places_m[start:stop] - rows.places_m[start]
        first = int(rows.places_m[start])
        block = saved[first : first + int(places_m[-1]) + 1]
        if len(block) > len(places_m):
            block = block[places_m]
        target_c.index_copy_(0, rows.columns_m[start:stop].to(target_c.device), block.to(target_c))


def stretches(mask_c: Bool[Tensor, " c"]) -> Iterator[slice]:
    """The longest slices in which a mask is True."""
    steps = torch.nn.functional.pad(mask_c.to(torch.int8), (1, 1)).diff()
    yield from map(slice, (steps == 1).nonzero().flatten().tolist(), (steps == -1).nonzero().flatten().tolist())


def _saved_identities(checkpoint: CheckpointFolder, manifest: Manifest, file: Path) -> Tensor:
    with _opened(checkpoint, manifest, file) as tensors:
        identities_m: Tensor = tensors.get_tensor(IDENTITY)
    return identities_m


@contextmanager
def _opened(checkpoint: CheckpointFolder, manifest: Manifest, file: Path) -> Iterator[Any]:
    """A rank's file, of which no more than the size was looked at. ValueError for what cannot be the one written."""
    if (problem := checkpoint.problem(file, manifest.files[file.name], reads=False)) is not None:
        raise ValueError(problem)
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except SafetensorError as error:
        raise ValueError(f"{file} cannot be read as tensors: {error}") from error
