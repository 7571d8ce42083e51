"""Which columns of a table are the images and the labels, and what the labels are as numbers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from data_pipeline.files.arrow_texts import named_classes
from data_pipeline.files.packed_texts import PackedTexts
from data_pipeline.formats.table.files import TableFile, image_columns, label_columns
from data_pipeline.formats.table.names import ColumnError, ColumnNames

IMAGE_WORDS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "encoded")
LABEL_WORDS = ("label", "labels", "cls", "class", "class_id", "identity", "identity_id", "person_id", "target")
IMAGE_KIND, LABEL_KIND = "image column (bytes, or a struct with bytes)", "label column (integers or texts)"


def chosen_columns(asked: ColumnNames, file: TableFile, path: Path) -> tuple[str, str]:
    """The columns of images and of labels in `file`. ColumnError for a name that is not there, or cannot be guessed."""
    possible, labels = image_columns(file.schema), label_columns(file.schema)
    image = _named(asked.image, possible, "image", IMAGE_KIND, file, path)
    label = _named(asked.label, labels, "label", LABEL_KIND, file, path)
    image = image or _guessed(possible, IMAGE_WORDS, "image", IMAGE_KIND, file, path)
    return image, label or _guessed(labels, LABEL_WORDS, "label", LABEL_KIND, file, path)


def checked_labels(labels: Any, file: TableFile, path: Path, column: str) -> Any:
    """The column again; ValueError unless every row of the file has a label."""
    if len(labels) != sum(file.group_rows):
        raise ValueError(f"{path} is damaged: {len(labels)} labels in {sum(file.group_rows)} rows")
    if labels.null_count:
        row = int(np.flatnonzero(labels.is_null().to_numpy())[0])
        raise ValueError(f"{path} row {row}: its {column} is null; {labels.null_count} of {len(labels)} rows have none")
    return labels


def classes(columns: list[Any], where: str, column: str) -> tuple[NDArray[np.int64], PackedTexts | None]:
    """The label of every row, and the names of the labels where the tables give names."""
    labels = pyarrow.chunked_array([chunk for each in columns for chunk in each.chunks], columns[0].type)
    if pyarrow.types.is_dictionary(labels.type):
        labels = labels.cast(labels.type.value_type)
    if pyarrow.types.is_integer(labels.type):
        numbers = labels.to_numpy()
        if (wrong := (numbers < 0) | (numbers > np.iinfo(np.int64).max)).any():
            row = int(wrong.argmax())
            raise ValueError(f"{where}: {column} {numbers[row]} in row {row} of the set: expected labels from 0 on")
        return numbers.astype(np.int64), None
    return named_classes(labels)


def _named(asked: str | None, possible: list[str], what: str, kind: str, file: TableFile, path: Path) -> str | None:
    if asked is None or asked in possible:
        return asked
    nearest = difflib.get_close_matches(asked, possible, n=1, cutoff=0.0)
    more = f"the nearest is {nearest[0]!r}" if nearest else "there is none"
    is_there = "cannot hold them" if asked in file.schema.names else "is not there"
    raise ColumnError(
        f"{what}_column {asked!r} {is_there}: {path} has the columns {_shown(file)}, one {kind} is needed, and {more}"
    )


def _guessed(possible: list[str], words: Sequence[str], what: str, kind: str, file: TableFile, path: Path) -> str:
    known = [column for column in possible if column.lower() in words]
    if len(known) == 1:
        return known[0]
    if not known and what == "image" and len(possible) == 1:
        return possible[0]
    more = f", found {len(known)} of them" if len(known) > 1 else ""
    raise ColumnError(
        f"{what}_column is to be named: {path} has the columns {_shown(file)}: expected one {kind} called one of "
        f"{', '.join(words)}{more}"
    )


def _shown(file: TableFile) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in file.schema)
