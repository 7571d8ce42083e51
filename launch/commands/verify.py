"""``partial-fc verify``: every image of a set looked at, and what cannot be used counted, and listed in a file."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from data_pipeline.checking.checksums import stored_checksums
from data_pipeline.checking.problems import problems
from data_pipeline.checking.quarantine import QuarantineWriter
from data_pipeline.formats.by_path import source_at
from data_pipeline.formats.folders.folder import FolderSource
from data_pipeline.images.checks import LARGEST_PIXELS, kind_of
from data_pipeline.sets.joined import joined_sets
from launch.assembly.run_folder import refuse_inside_set
from launch.commands.arguments import add_column_arguments, columns_of
from launch.config.section import user_path
from launch.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The set, how closely to look, and where the list goes."""
    parser.add_argument(
        "data", type=user_path, nargs="+", metavar="DATA", help="a set as training takes it, or its parts"
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="read all, decode nothing: finds what is cut short, foreign, a bomb, or fails its checksum",
    )
    add_column_arguments(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode; threads with --fast")
    parser.add_argument(
        "--out", type=user_path, default=Path("quarantine.tsv"), metavar="FILE", help="the list (./quarantine.tsv)"
    )
    parser.add_argument(
        "--largest-pixels",
        type=int,
        default=LARGEST_PIXELS,
        metavar="N",
        help=f"width x height above which an image counts as a bomb ({LARGEST_PIXELS:,})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Verify a set and return the exit code: 0 where every image can be used, else that of bad data."""
    source = source_at(arguments.data, columns=columns_of(arguments), root=arguments.root)
    for part in joined_sets(source):
        if isinstance(part, FolderSource):
            refuse_inside_set("--out", arguments.out, part.root)
    checksums = stored_checksums(arguments.data, source)
    found = problems(
        source,
        checksums=checksums,
        fast=arguments.fast,
        workers=arguments.workers,
        largest_pixels=arguments.largest_pixels,
        progress=True,
    )
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    with QuarantineWriter(arguments.out, source) as quarantine:
        for sample, reason in found:
            quarantine.append(sample, reason)
            counts[kind_of(reason)] += 1
            first.setdefault(kind_of(reason), f"{reason} ({source.name(sample)})")
    _print_counts(len(source), counts, first, has_checksums=checksums is not None)
    print(f"{arguments.out}  {'the samples, where they lie and why' if counts else 'nothing to leave out'}")
    return ExitCode.BAD_DATA if counts else ExitCode.DONE


def _print_counts(images: int, counts: Counter[str], first: dict[str, str], *, has_checksums: bool) -> None:
    bad = counts.total()
    if not bad:
        print(f"all of {images:,} images can be used{', and have their checksums' if has_checksums else ''}")
        return
    print(f"{bad:,} of {images:,} images cannot be used ({100 * bad / images:.2g} %); of each kind the first:")
    for kind, count in counts.most_common():
        print(f"{count:>9,}  {first[kind]}")
