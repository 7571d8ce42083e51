"""``partial-fc verify``: every image of a set looked at, and what cannot be used counted, and listed in a file."""

from __future__ import annotations

import argparse
from collections import Counter

from data_pipeline.checking.checksums import stored_checksums
from data_pipeline.checking.problems import problems
from data_pipeline.checking.quarantine import QuarantineWriter
from data_pipeline.formats.by_path import source_at
from data_pipeline.formats.folders.folder import FolderSource
from data_pipeline.images.checks import kind_of
from data_pipeline.sets.joined import joined_sets
from launch.assembly.run_folder import refuse_inside_set
from launch.command_line.columns import columns_of
from launch.errors import ExitCode


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
