"""The sets of images that a configuration names, opened, and refused where they contradict it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_pipeline import Source
from data_pipeline.joined import Join
from data_pipeline.label_noise import NoisyLabels
from data_pipeline.open_source import open_source, parts
from data_pipeline.selection import SelectedSource
from data_pipeline.table_columns import GUESSED, ColumnError, Columns
from data_pipeline.verification_bin import BinSource
from launch.config import Config, ConfigError


def open_records(path: Path, config: Config | None = None) -> Source:
    """The held-out set in ``path``, whichever form it has; ``config`` names the columns if it is a table."""
    return _with_identities(path, "offset", _columns(config) if config else GUESSED, needs_table=False)


def open_training_data(config: Config) -> Source:
    """The training set, with the wrong labels asked for. ConfigError when the config contradicts the data."""
    paths = config.data.train
    source = _with_identities(
        paths, config.data.join, _columns(config), needs_table=config.data.evaluate is None
    )  # otherwise the columns may be those of the held-out set
    if config.data.least_images_per_identity > 1:
        source = SelectedSource(source, least_images=config.data.least_images_per_identity)
    found = {"num_classes": source.num_classes, "num_images": len(source)}
    for name, number in found.items():
        stated = getattr(config.data, name)
        if stated is not None and stated != number:
            raise ConfigError(
                f"data.{name} is {stated}, but {_named(paths)} has {number}: leave the key out, or name other data"
            )
    return NoisyLabels(source, config.data.label_noise, config.seed) if config.data.label_noise else source


def _with_identities(paths: Path | Sequence[Path], join: Join, columns: Columns, *, needs_table: bool) -> Source:
    """The set in ``paths``. ConfigError for a column that is not there, and for a set that has pairs only."""
    try:
        source = open_source(paths, join=join, columns=columns, needs_table=needs_table)
    except ColumnError as error:
        raise ConfigError(f"data.{error}") from error
    if any(isinstance(part, BinSource) for part in parts(source)):
        raise ConfigError(
            f"{_named(paths)} is a verification set: it says of pairs of images whether they are one person's, not "
            "whose they are. Measure with it: partial-fc evaluate RUN --pairs X.bin"
        )
    return source


def _columns(config: Config) -> Columns:
    return Columns(config.data.image_column, config.data.label_column)


def _named(paths: Path | Sequence[Path]) -> str:
    return str(paths) if isinstance(paths, Path) else " + ".join(map(str, paths))
