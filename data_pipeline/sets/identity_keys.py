"""One number for each identity of a set, by which a class row finds its person again in another set.

A label is no such number: one identity more, and all labels behind it are others.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.hashing import bits, key
from data_pipeline.sets.identities import written_names
from data_pipeline.sets.joined import JoinedSource
from data_pipeline.sets.merged import MergedSource
from data_pipeline.sets.noisy import NoisyLabels
from data_pipeline.sets.selected import SelectedSource
from data_pipeline.source import Source

Keys = NDArray[np.uint64]
_KEY_BYTES = 8
_NUMBER = re.compile("0|[1-9][0-9]{0,17}")  # below 2**63


def identity_keys(source: Source, paths: Sequence[Path] = ()) -> NDArray[np.int64]:
    """The key of every label's identity, shape (C,), all different; `paths` are those that `source` was opened from.

    An identity with a name, which its source knows or `identities.tsv` beside its files, has 64 bits of the name's
    BLAKE2b: two of ten million names share them with a chance of 3 in a million. One without a name has its number, as
    it lies in the files, for a key; a name that is a number, as `identities.tsv` calls identities without names, is
    that number. Of sets joined by `offset`, each is a world of its own, told by its place in the list. Of several
    labels with one name the first has its key, and each further one another, by how many there were before it.

    Takes 8 bytes an identity and no time where labels are numbers; about 2 us a name.
    """
    return _keys(source, paths, np.arange(source.num_classes)).view(np.int64)


def identities_mark(keys: NDArray[np.int64]) -> str:
    """Eight hexadecimal digits that differ between sets of other identities, or with other labels for them."""
    return f"{zlib.crc32(keys.astype('<i8').data):08x}"


def _keys(source: Source, paths: Sequence[Path], labels: NDArray[np.int64]) -> Keys:
    """The keys of some labels; labels may be ids of any size, so that all up to the largest would not fit."""
    if isinstance(source, NoisyLabels | MergedSource):
        return _keys(source.source, paths, labels)
    if isinstance(source, SelectedSource):
        return _keys(source.source, paths, source.original_labels[labels])
    if isinstance(source, JoinedSource) and source.join == "offset":
        return _keys_of_parts(source.sources, paths, labels)
    names = source.identities
    if names is None and len(paths) == 1:
        names_by_label = written_names(paths[0])
        return _keys_by_name(names_by_label, labels) if names_by_label else labels.astype(np.uint64)
    return labels.astype(np.uint64) if names is None else _keys_by_name(names, labels)


def _keys_of_parts(parts: Sequence[Source], paths: Sequence[Path], labels: NDArray[np.int64]) -> Keys:
    """Those of the first set are what they are without the others: sets may be added behind it."""
    ends = np.cumsum([part.num_classes for part in parts])
    keys, part_of = np.empty(labels.shape, np.uint64), np.searchsorted(ends, labels, side="right")
    for at, part in enumerate(parts):
        own = part_of == at
        path = paths[at : at + 1] if len(paths) == len(parts) else ()
        found = _keys(part, path, labels[own] - (ends[at] - part.num_classes))
        keys[own] = bits(key(at), found) if at else found
    return keys


def _keys_by_name(names: Sequence[str] | Mapping[int, str], labels: NDArray[np.int64]) -> Keys:
    known = range(len(names)) if isinstance(names, Sequence) else names
    keys = (_key_of_name(names[label]) if label in known else label for label in labels.tolist())
    return _all_different(np.fromiter(keys, np.uint64, labels.size))


def _key_of_name(name: str) -> int:
    if _NUMBER.fullmatch(name):
        return int(name)
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=_KEY_BYTES).digest()
    return int.from_bytes(digest, "little")


def _all_different(keys: Keys) -> Keys:
    order = np.argsort(keys, kind="stable")
    begins = np.ones(keys.size, np.bool_)
    begins[1:] = keys[order[1:]] != keys[order[:-1]]
    if begins.all():
        return keys
    places = np.arange(keys.size)
    earlier = np.empty(keys.size, np.uint64)
    earlier[order] = places - np.maximum.accumulate(np.where(begins, places, 0))
    return np.where(earlier == 0, keys, bits(keys, earlier))
