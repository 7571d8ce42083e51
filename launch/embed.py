"""Embeddings of a set of images into a file: ``partial-fc embed MODEL IMAGES OUT``, one rank."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from data_pipeline.complaints import listed
from data_pipeline.formats.by_path import source_at
from launch.assembly.run_folder import refuse_inside_set
from launch.command_line import embedding
from launch.command_line.columns import columns_of
from launch.config.loading import ConfigError
from launch.embedding.written import Embedder, embed_set
from launch.errors import reported
from launch.processes import PATIENCE_SECONDS, end_with
from launch.resilience.agent import end_with_agent
from launch.units import bytes_text
from partial_fc.inference.embedding_file import SUFFIXES, companions
from partial_fc.inference.trained import trained_network
from partial_fc.world import local_device, process_group


def main(argv: Sequence[str] | None = None) -> int:
    """Run one rank and return its exit code (see ``launch/errors.py``)."""
    parser = argparse.ArgumentParser(prog="python -m launch.embed", description=__doc__)
    embedding.add_arguments(parser)
    arguments = parser.parse_args(argv)
    end_with_agent()  # else ranks of a killed command would go on, and hold the folder of parts
    with reported() as outcome:
        run(arguments)
    return outcome.exit_code


def run(arguments: argparse.Namespace) -> None:
    """Embed what ``arguments`` name, and say what was written and left out."""
    images, out = arguments.images, arguments.out
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"OUT {out}: name a file that ends in {' or '.join(SUFFIXES)}")
    refuse_inside_set("OUT", out, images)
    source = source_at(images, columns=columns_of(arguments), root=arguments.root)
    network, facts = trained_network(arguments.model, arguments.input_size)
    device = local_device()
    with process_group(PATIENCE_SECONDS) as world:
        embedder = Embedder(network.to(device), facts, device, arguments.flip)
        bad = embed_set(embedder, source, images, out, world, images_per_part=arguments.images_per_part)
        if world.rank:
            return
        if bad:
            named = listed([f"{source.name(sample)}: {reason}" for sample, reason in bad.items()])
            told = f"left out: {len(bad):,} of {len(source):,} images, which cannot be used ({named})"
            print(told, file=sys.stderr)
        print(f"{out}  {bytes_text(out.stat().st_size)}: {len(source) - len(bad):,} embeddings of length 1")
        for what, file in companions(out).items():
            print(f"{file}  {what}")


if __name__ == "__main__":
    end_with(main)
