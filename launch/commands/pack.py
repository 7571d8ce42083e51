"""``partial-fc pack``: the arguments of each kind of source, and the call that makes a set of it."""

from __future__ import annotations

import argparse

from data_pipeline.converting.convert import convert
from data_pipeline.packing.folder import pack_folder
from data_pipeline.packing.omniglot import pack_omniglot
from data_pipeline.packing.synthetic import pack_synthetic
from data_pipeline.sets.selected import SelectedSource, gaps_in_words
from launch.assembly.run_folder import refuse_inside_set
from launch.command_line.columns import columns_of
from launch.processes import keep_freed_memory

BIN_LABELS = "Images of a pair of one person, and images the same byte for byte, share a label"


def _pack_folder(arguments: argparse.Namespace) -> None:
    refuse_inside_set("--out", arguments.out, arguments.source)
    pack_folder(arguments.source, arguments.out, size=arguments.size, quality=arguments.quality)


def _pack_omniglot(arguments: argparse.Namespace) -> None:
    form = {"size": arguments.size, "quality": arguments.quality}
    pack_omniglot(arguments.zips, arguments.out, **form, rotations=not arguments.no_rotations)


def _pack_synthetic(arguments: argparse.Namespace) -> None:
    pack_synthetic(
        arguments.out,
        identities=arguments.identities,
        images=arguments.images,
        size=arguments.size,
        quality=arguments.quality,
        seed=arguments.seed,
        first_identity=arguments.first_identity,
        begin=keep_freed_memory,  # or a quarter of the time to draw small pictures goes into mapping it again
    )


def _convert(arguments: argparse.Namespace) -> None:
    written = convert(
        arguments.sources,
        arguments.out,
        to=arguments.to,
        shuffle=arguments.shuffle,
        join=arguments.join,
        columns=columns_of(arguments),
        root=arguments.root,
        workers=arguments.workers,
        images_per_part=arguments.images_per_shard,
        size=arguments.size,
        quality=arguments.quality,
        quarantine=arguments.quarantine,
        progress=True,
    )
    if isinstance(written, SelectedSource) and (gaps := gaps_in_words(written.source)):
        print(f"{gaps}. Labels were numbered anew, 0 to {written.num_classes - 1:,}: identities.tsv has what they were")
    for path in arguments.sources:
        if path.suffix.lower() == ".bin":
            print(f"{path} has pairs and no identities: {arguments.out} has its images, not its pairs. {BIN_LABELS}")


def run(arguments: argparse.Namespace) -> int:
    """Pack what ``arguments`` name and return the exit code."""
    kinds = {"folder": _pack_folder, "omniglot": _pack_omniglot, "synthetic": _pack_synthetic, "convert": _convert}
    kinds[arguments.kind](arguments)
    return 0
