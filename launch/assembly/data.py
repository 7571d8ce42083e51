"""The sets of images that a configuration names, and the batches made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.checking.merge_list import merged_labels
from data_pipeline.checking.quarantine import is_made_for, quarantined_samples
from data_pipeline.formats.by_path import source_at
from data_pipeline.formats.table.names import GUESSED, ColumnError, ColumnNames
from data_pipeline.formats.verification_bin.source import BinSource
from data_pipeline.loader.image_loader import ImageFormat, ImageLoader
from data_pipeline.order.balanced import BalancedOrder
from data_pipeline.order.shuffled import SampleOrder, rank_positions
from data_pipeline.sets.fingerprint import fingerprint
from data_pipeline.sets.identity_keys import identity_keys
from data_pipeline.sets.joined import Join, joined_sets
from data_pipeline.sets.merged import MergedSource
from data_pipeline.sets.noisy import NoisyLabels
from data_pipeline.sets.selected import SelectedSource, gaps_in_words, numbered_without_gaps
from data_pipeline.source import Source
from launch.config.data import DataConfig
from launch.config.loading import ConfigError
from partial_fc import World

LEAST_IMAGES_OF_RANK = 2  # BatchNorm takes their variance


def image_format(section: DataConfig, device: torch.device) -> ImageFormat:
    """What an image becomes: in channels-last order, as the backbone takes it."""
    place = "cpu" if device.type == "cpu" else device.index or 0
    side = section.image_size
    return ImageFormat(side, side, device=place, channels_last=True, fill=float(section.fill))


def batch_shares(batch_size: int, ranks: int) -> list[int]:
    """How many images of every global batch each rank has."""
    return [len(rank_positions(0, batch_size, rank, ranks)) for rank in range(ranks)]


def refuse_small_batch(batch_size: int, number: int, unit: str) -> None:
    """ConfigError where BatchNorm would get fewer than two images on any of ``number`` ranks or GPUs."""
    least = LEAST_IMAGES_OF_RANK * number
    if batch_size < least:
        raise ConfigError(
            f"schedule.batch_size is {batch_size}: BatchNorm needs two images on each of {number} {unit}, {least} "
            "together"
        )


def loader(
    section: DataConfig,
    source: Source,
    *,
    batch_size: int,
    seed: int,
    world: World,
    device: torch.device,
    start_step: int = 0,
) -> ImageLoader:
    """This rank's part of every global batch from ``start_step`` on, endless.

    ConfigError when a rank would get fewer than two images.
    """
    refuse_small_batch(batch_size, world.size, "ranks")
    return ImageLoader(
        source,
        image_format(section, device),
        global_batch=batch_size,
        rank=world.rank,
        size=world.size,
        seed=seed,
        augmentation=augmentation(section),
        quarantine=quarantined(section, source),
        sample_order=_sample_order(section.images_per_identity_in_batch, source, batch_size, seed),
        num_threads=section.decode_threads,
        start_step=start_step,
    )


def augmentation(section: DataConfig) -> Augmentation:
    """How training images are changed."""
    return Augmentation(**section.augmentation.model_dump())


def quarantined(section: DataConfig, source: Source) -> NDArray[np.int64]:
    """The images of ``source`` in the lists of ``data.quarantine`` that are of it: each is of a set as it lies on disk.

    A list may be of the training set or of the held-out one; see :func:`refuse_foreign_lists`.
    """
    found = [_quarantine(path, source) for path in _lists(section) if is_made_for(path, on_disk(source))]
    return np.unique(np.concatenate([np.empty(0, np.int64), *found]))


def refuse_foreign_lists(section: DataConfig, *sources: Source) -> None:
    """ValueError for a list of ``data.quarantine`` that was made for none of ``sources``."""
    for path in _lists(section):
        if not any(is_made_for(path, on_disk(source)) for source in sources):
            raise ValueError(
                f"data.quarantine: {path} was made for another set than data.train and data.evaluate, or that set was "
                "changed: let partial-fc verify make it again"
            )


def _lists(section: DataConfig) -> Sequence[Path]:
    return [section.quarantine] if isinstance(section.quarantine, Path) else section.quarantine


def _quarantine(path: Path, source: Source) -> NDArray[np.int64]:
    """The images listed in ``path``, by their numbers in ``source``: a list is of the set as it lies on disk."""
    listed = source.source if isinstance(source, NoisyLabels) else source
    if isinstance(listed, SelectedSource):
        return listed.samples_of(quarantined_samples(path, listed.source))
    return quarantined_samples(path, listed)


def _sample_order(images_each: int | None, source: Source, batch_size: int, seed: int) -> SampleOrder | None:
    """The order asked for, or None for the usual one. ConfigError for one that the data or the batch cannot have."""
    if images_each is None:
        return None
    try:
        return BalancedOrder(source.labels, global_batch=batch_size, images_each=images_each, seed=seed)
    except ValueError as error:
        raise ConfigError(f"data.images_per_identity_in_batch: {error}") from error


def on_disk(source: Source) -> Source:
    """``source`` as it lies on disk: without the choice, the merges and the noise that a config asks for."""
    while isinstance(source, NoisyLabels | SelectedSource | MergedSource):
        source = source.source
    return source


def set_paths(section: DataConfig) -> list[Path]:
    """Every set that ``section`` names, for training and for measuring."""
    return [*training_paths(section), *([section.evaluate] if section.evaluate else [])]


def training_paths(section: DataConfig) -> Sequence[Path]:
    """The set, or the sets, that are trained on."""
    return [section.train] if isinstance(section.train, Path) else section.train


def open_held_out(path: Path, section: DataConfig | None = None) -> Source:
    """The held-out set in ``path``, whichever form it has; ``section`` names the columns if it is a table."""
    columns, root = (_columns(section), section.root) if section else (GUESSED, None)
    return _with_identities(path, "offset", columns, root, needs_table=False)


def open_training_data(section: DataConfig, seed: int) -> Source:
    """The training set, with the wrong labels asked for. ConfigError when the config contradicts the data."""
    source = _with_identities(
        section.train, section.join, _columns(section), section.root, needs_table=section.evaluate is None
    )  # otherwise columns and root may be those of the held-out set
    _refuse_copies(training_paths(section), joined_sets(source))
    if section.merge is not None:
        source = MergedSource(source, merged_labels(section.merge, source))
    if section.least_images_per_identity > 1:
        source = SelectedSource(source, least_images=section.least_images_per_identity)
    source = numbered_without_gaps(source)
    if source.num_classes == 1:
        raise ValueError(
            f"{_named(section.train)} has images of one identity{_enough(section)}: training tells identities apart, "
            "and needs two or more"
        )
    found = {"num_classes": source.num_classes, "num_images": len(source)}
    for name, number in found.items():
        stated = getattr(section, name)
        if stated is not None and stated != number:
            raise ConfigError(
                f"data.{name} is {stated}, but {_named(section.train)} has {number}{numbering(source)}: leave the key "
                "out, or name other data"
            )
    return NoisyLabels(source, section.label_noise, seed) if section.label_noise else source


def identities(section: DataConfig, source: Source) -> Tensor:
    """A key of the identity of every label of the training set, ``(C,)`` int64: its row is found again by it."""
    return torch.from_numpy(identity_keys(source, training_paths(section)))


def _refuse_copies(paths: Sequence[Path], parts: Sequence[Source]) -> None:
    """ConfigError where two sets have the same images: each person would be two classes, or count twice."""
    if len(parts) == len(paths) > 1:
        marks = [(len(part), fingerprint(part)) for part in parts]
        for at, mark in enumerate(marks):
            if (first := marks.index(mark)) < at:
                raise ConfigError(f"data.train: {paths[at]} has the images of {paths[first]}: leave one of them out")


def _with_identities(
    paths: Path | Sequence[Path], join: Join, columns: ColumnNames, root: Path | None, *, needs_table: bool
) -> Source:
    """The set in ``paths``. ConfigError for a column that is not there, and for a set that has pairs only."""
    try:
        source = source_at(paths, join=join, columns=columns, root=root, needs_table=needs_table)
    except ColumnError as error:
        raise ConfigError(f"data.{error}") from error
    if any(isinstance(part, BinSource) for part in joined_sets(source)):
        raise ConfigError(
            f"{_named(paths)} is a verification set: it says of pairs of images whether they are one person's, not "
            "whose they are. Measure with it: partial-fc evaluate RUN --pairs X.bin"
        )
    return source


def numbering(source: Source) -> str:
    """Why the labels of a training set were numbered anew, in brackets; nothing where they were not."""
    source = source.source if isinstance(source, NoisyLabels) else source
    gaps = gaps_in_words(source.source) if isinstance(source, SelectedSource) else None
    return f" (numbered anew: {gaps})" if gaps else ""


def _enough(section: DataConfig) -> str:
    least = section.least_images_per_identity
    return f" with {least} or more (data.least_images_per_identity)" if least > 1 else ""


def _columns(section: DataConfig) -> ColumnNames:
    return ColumnNames(section.image_column, section.label_column)


def _named(paths: Path | Sequence[Path]) -> str:
    return str(paths) if isinstance(paths, Path) else " + ".join(map(str, paths))
