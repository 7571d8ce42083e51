"""A set to measure on: looked at before anything is trained or embedded, with what is left out of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.checking.problems import problems
from data_pipeline.complaints import listed
from data_pipeline.formats.verification_bin.source import BinSource
from data_pipeline.sets.identities import identity_names
from data_pipeline.source import Source
from launch import assembly
from launch.assembly.data import refuse_foreign_lists, training_paths
from launch.config.data import DataConfig
from launch.evaluation.lfw_pairs import PairList, file_numbers, read_pairs
from launch.evaluation.overlap import Overlap, shared_names
from launch.evaluation.seen import SEEN, UNKNOWN, is_named_among, seen_in_training
from partial_fc.evaluation import FOLDS
from partial_fc.functional.verification import consecutive_folds
from partial_fc.world import global_rank


class HeldOut(NamedTuple):
    """The images to measure on, the samples to leave out of them, and the pairs to tell apart where some are listed.

    ``seen`` says what is known of whether the network was trained on them; see :mod:`launch.evaluation.seen`.
    ``shared`` is what it shares with the training set, where that was asked for.
    """

    source: Source
    left_out: NDArray[np.int64]
    pairs: PairList | None = None
    seen: str = UNKNOWN
    shared: Overlap | None = None

    @property
    def facts(self) -> dict[str, object]:
        """What an evaluation's file says of the set, beside the measures."""
        return {} if self.shared is None else {"shared_with_training": self.shared.to_json()}

    @property
    def usable_labels(self) -> NDArray[np.int64]:
        """The labels of the images that are not left out."""
        return np.delete(self.source.labels, self.left_out)


def open_identities(path: Path, section: DataConfig, pairs: Path | None = None) -> HeldOut:
    """The held-out set in ``path`` without what ``data.quarantine`` lists, and the list in ``pairs``.

    ValueError for a set that has no pair of one identity, or none of two: nothing could be measured on it.
    """
    source = assembly.open_held_out(path, section)
    wanted = None if pairs is None else _listed_pairs(pairs, source, path)
    seen = SEEN if is_named_among(path, training_paths(section)) else UNKNOWN
    held_out = HeldOut(source, assembly.quarantined(section, source), wanted, seen)
    refuse_without_pairs(path, held_out.usable_labels)
    return held_out


def held_out_of_training(section: DataConfig, trained: Source) -> HeldOut | None:
    """``data.evaluate``, looked at: what is wrong with it, and whether it is trained on as well, is printed."""
    path = section.evaluate
    held_out = open_identities(path, section) if path else None
    refuse_foreign_lists(section, trained, *([held_out.source] if held_out else []))
    if path is None or held_out is None:
        return None
    seen = seen_in_training(path, held_out.source, training_paths(section), trained)
    if global_rank() == 0:
        if (said := damage_found(held_out, path)) is not None:
            print(said, flush=True)
        if seen == SEEN:
            print(f"data.evaluate, {path}, is trained on: its figures say how well it was learnt, no more", flush=True)
        elif names := shared_names(path, held_out.source, training_paths(section), trained):
            print(f"data.evaluate: {Overlap(names, []).sentences(held_out.source)[0]}", flush=True)
    return held_out._replace(seen=seen)


def _listed_pairs(pairs: Path, source: Source, path: Path) -> PairList:
    names = identity_names(source, path)
    return read_pairs(pairs, source.labels, names, file_numbers(source, names))


def open_pair_set(path: Path, section: DataConfig) -> HeldOut:
    """The pairs of a ``.bin``. ValueError where some of one identity, some of two, or ten in all are missing."""
    source = BinSource(path)
    genuine = int(source.is_same.sum())
    impostor = source.is_same.size - genuine
    if not genuine or not impostor or source.is_same.size < FOLDS:
        raise ValueError(
            f"{path} has {genuine} pairs of one identity and {impostor} of two: nothing can be measured without both, "
            f"nor with fewer than {FOLDS} pairs"
        )
    pairs = PairList(torch.arange(len(source)).reshape(-1, 2), consecutive_folds(source.is_same.size, FOLDS))
    return HeldOut(source, assembly.quarantined(section, source), pairs)


def refuse_without_pairs(path: Path, labels: NDArray[np.int64]) -> None:
    """ValueError where no two images are of one identity, or no two of different ones."""
    images_each = np.unique(labels, return_counts=True)[1]
    if images_each.size < 2 or images_each.max() < 2:
        raise ValueError(
            f"{path} cannot be measured on: it has {labels.size:,} usable images of {images_each.size:,} identities, "
            "and needs at least two identities, one of them with two images"
        )


def damage_found(held_out: HeldOut, path: Path) -> str | None:
    """What will be left out of the set in ``path``, in a sentence; None where all of it can be used.

    Reads every image and decodes none: an image that only the decoder refuses is found when it is embedded. ValueError
    where nothing could be measured on the rest.
    """
    found = [problem for problem in problems(held_out.source, fast=True) if problem.sample not in held_out.left_out]
    bad = np.union1d(held_out.left_out, [problem.sample for problem in found]).astype(np.int64)
    if not bad.size:
        return None
    rest = held_out._replace(left_out=bad)
    if rest.pairs is None:
        refuse_without_pairs(path, rest.usable_labels)
    else:
        _refuse_without_listed_pairs(path, rest, rest.pairs)
    return said_of_left_out(held_out, {problem.sample: problem.reason for problem in found})


def _refuse_without_listed_pairs(path: Path, held_out: HeldOut, pairs: PairList) -> None:
    """ValueError where what is left out empties a fold, or takes all pairs of one identity or all of two."""
    images = len(held_out.source)
    usable_N = torch.from_numpy(np.delete(np.arange(images), held_out.left_out))
    try:
        _, whole_P = rows_of_pairs(pairs, usable_N, images)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    source = held_out.source
    first_P, second_P = torch.from_numpy(source.labels)[pairs.pairs_P2].unbind(1)
    same_P = (torch.from_numpy(source.is_same) if isinstance(source, BinSource) else first_P == second_P)[whole_P]
    if same_P.all() or not same_P.any():
        raise ValueError(
            f"{path} cannot be measured on: of its pairs with two usable images none is of "
            f"{'two identities' if same_P.all() else 'one identity'}"
        )


def said_of_left_out(held_out: HeldOut, bad: dict[int, str]) -> str:
    """How many images are left out of a measurement, those of them that are ``bad`` by name."""
    named = listed([f"{held_out.source.name(sample)}: {reason}" for sample, reason in sorted(bad.items())])
    parts = [
        f"{held_out.left_out.size:,} that data.quarantine lists" if held_out.left_out.size else "",
        f"{len(bad):,} that cannot be used ({named})" if bad else "",
    ]
    return f"left out of the {len(held_out.source):,} held-out images: {' and '.join(filter(None, parts))}"


def rows_of_pairs(pairs: PairList, samples_N: Tensor, num_images: int) -> tuple[PairList, Tensor]:
    """The pairs as rows of ``samples_N``, in the folds they had, and which of the P these are, (P,): the others lack an
    image. ValueError where a fold has lost all of its pairs: the accuracy would be that of other folds."""
    rows = torch.full((num_images,), -1)
    rows[samples_N.cpu()] = torch.arange(len(samples_N))
    found_P2 = rows[pairs.pairs_P2]
    whole_P = (found_P2 >= 0).all(1)
    if len(lost := torch.tensor(sorted({*pairs.fold_P.tolist()} - {*pairs.fold_P[whole_P].tolist()}))):
        raise ValueError(f"fold {int(lost[0]) + 1} has no pair left, as one image of each cannot be used: mend them")
    return PairList(found_P2[whole_P], pairs.fold_P[whole_P]), whole_P
