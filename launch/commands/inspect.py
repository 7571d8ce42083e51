"""``partial-fc inspect``: what a set of images is and what is wrong with it, on screen, as a page and as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from data_pipeline.checking.contact_sheet import Row, drawn_rows, sheet, strip
from data_pipeline.checking.inspection import Inspection, inspection
from data_pipeline.formats.by_path import source_at
from data_pipeline.formats.folders.folder import FolderSource
from data_pipeline.source import Source
from launch.assembly.run_folder import refuse_inside_set
from launch.command_line.columns import columns_of
from launch.pages.inspection import all_bytes_text, histogram, sizes_text, write_inspection
from launch.writing import naming

FORMATS = {
    "RecordSource": "RecordIO (.rec)",
    "FolderSource": "a folder of images per identity",
    "ListSource": "a list of paths and labels",
    "TarSource": "tar shards (WebDataset)",
    "TableSource": "Parquet or Arrow",
    "BinSource": "a verification set of pairs (InsightFace's .bin)",
}


def run(arguments: argparse.Namespace) -> int:
    """Inspect a set and return the exit code: 0, also where something is wrong with it."""
    source = source_at(arguments.data, columns=columns_of(arguments), root=arguments.root)
    if arguments.out is not None and isinstance(source, FolderSource):
        refuse_inside_set("--out", arguments.out, arguments.data)
    rows = drawn_rows(source, seed=arguments.seed)
    shown = [sample for row in rows for sample in row.samples]
    found = inspection(source, images=arguments.images, seed=arguments.seed, always=shown)
    kind = format_name(source)
    _print_table(arguments.data, kind, found)
    if arguments.out is not None:
        _write(arguments.out, arguments.data, kind, source, found, rows)
    return 0


def format_name(source: Source) -> str:
    """What the format of a set is called."""
    return FORMATS.get(type(source).__name__, type(source).__name__)


def _print_table(path: Path, kind: str, found: Inspection) -> None:
    per_identity = found.images_per_identity
    table = Table(show_header=False)
    for name, value in (
        ("format", kind),
        *([("pairs", found.pairs.description)] if found.pairs else []),
        *([("labels", found.labels_from)] if found.labels_from else []),
        ("identities", f"{found.num_identities:,}"),
        ("images", f"{found.num_images:,}"),
        ("images per identity", _spread(per_identity)),
        *((f"  {label}", f"{count:,} identities") for label, count in histogram(per_identity)),
        ("bytes", all_bytes_text(found)),
        ("image sizes", sizes_text(found)),
        ("image formats", ", ".join(f"{name} {count:,}" for name, count in found.formats.most_common())),
        ("looked at", "all images" if found.is_whole else f"{len(found.samples):,} images, drawn by rule"),
    ):
        table.add_row(name, value)
    print(path)
    Console(highlight=False, markup=False).print(table)
    faults = list(found.findings())
    print("what is wrong:" if faults else "nothing wrong was found", *faults, sep="\n- ")


def _spread(per_identity: NDArray[np.int64]) -> str:
    return (
        f"{per_identity.min():,} to {per_identity.max():,}, median {np.median(per_identity):,.0f}, "
        f"mean {per_identity.mean():,.1f}"
    )


def _write(out: Path, path: Path, kind: str, source: Source, found: Inspection, rows: list[Row]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    strips = [strip(source, row) for row in rows]
    captions = [f"identity {row.label}: {row.num_images:,} image{'s' * (row.num_images > 1)}" for row in rows]
    with naming(out / "contact_sheet.png"):
        sheet(strips, captions).save(out / "contact_sheet.png")
    write_inspection(out / "inspection.html", found, title=str(path), kind=kind, strips=strips, captions=captions)
    print(f"{out / 'inspection.html'}  open this one\n{out / 'contact_sheet.png'}  a row is one identity")
