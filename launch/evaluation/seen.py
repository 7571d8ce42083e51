"""Whether a network was trained on the people it is measured on: no more is said than the sets themselves tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_pipeline.sets.fingerprint import fingerprint
from data_pipeline.sets.joined import joined_sets
from data_pipeline.source import Source
from launch.assembly.data import on_disk
from launch.evaluation.overlap import names_in_words

NOT_SEEN, SEEN, UNKNOWN = "not seen in training", "of the training set", ""  # as a title goes on


def is_named_among(path: Path, paths: Sequence[Path]) -> bool:
    """Whether ``path`` leads to the place that one of ``paths`` leads to."""
    return path.resolve() in {each.resolve() for each in paths}


def seen_in_training(path: Path, held_out: Source, trained_paths: Sequence[Path], trained: Source) -> str:
    """``SEEN`` where the held-out set in ``path`` is one of the training sets, by its place or by its images.

    ``NOT_SEEN`` where both sets name their identities and have no name in common; else ``UNKNOWN``: labels that are
    numbers tell nothing. Reads 64 images of each set.
    """
    parts = joined_sets(on_disk(trained))
    mark = len(held_out), fingerprint(held_out)
    has_its_images = any((len(part), fingerprint(part)) == mark for part in parts)
    if has_its_images or is_named_among(path, [*trained_paths, *trained.files]):
        return SEEN
    if len(parts) != len(trained_paths):
        return UNKNOWN
    names_of_parts = [names_in_words(part, at) for part, at in zip(parts, trained_paths, strict=True)]
    names = names_in_words(held_out, path)
    are_known = bool(names) and all(names_of_parts)
    return NOT_SEEN if are_known and names.isdisjoint(set().union(*names_of_parts)) else UNKNOWN
