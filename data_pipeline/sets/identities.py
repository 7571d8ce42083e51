"""What the labels of a set are called: names that its source knows, or `identities.tsv` beside its files.

label <tab> identity <tab> images
0 <tab> Ann Lee <tab> 12
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from data_pipeline.sets.selected import SelectedSource
from data_pipeline.source import Source

IDENTITIES = "identities.tsv"
COLUMNS = ("label", "identity", "images")


def label_names(source: Source, path: Path | None = None) -> dict[int, str]:
    """The name of each label: that which `source` knows, else the one written beside its files at `path`; empty where
    labels are but numbers. One that was numbered anew has the name of the label that it had, or that number."""
    if isinstance(source, SelectedSource):
        names = label_names(source.source, path)
        return {new: names.get(old, str(old)) for new, old in enumerate(source.original_labels.tolist())}
    if source.identities is not None:
        return dict(enumerate(source.identities))
    return written_names(path) if path is not None else {}


def identity_names(source: Source, path: Path) -> dict[str, int]:
    """The label of each name; see :func:`label_names`."""
    return {name: label for label, name in label_names(source, path).items()}


def write_identities(folder: Path, rows: Iterable[tuple[int, str, int]]) -> None:
    """Writes `identities.tsv`: a label, what it is called, and how many images it has, for each row."""
    with (folder / IDENTITIES).open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def written_names(records: Path) -> dict[int, str]:
    """The name of each label in the file beside the set at `records`, a file or a folder; empty where there is none."""
    path = (records if records.is_dir() else records.parent) / IDENTITIES
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        if not {"label", "identity"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path} begins with {rows.fieldnames}: expected the columns label and identity")
        return {int(row["label"]): row["identity"] for row in rows}


PROPERTY = "property"


def write_property(out: Path, num_classes: int, width: int, height: int) -> None:
    """Writes what arcface_torch wants to know of a set: classes, and the height and width of its images."""
    (out / PROPERTY).write_text(f"{num_classes},{height},{width}\n", encoding="ascii")
