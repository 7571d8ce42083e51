"""``partial-fc align``: a folder of pictures and their landmarks made into a folder of aligned faces."""

from __future__ import annotations

import argparse

from data_pipeline.aligning.folder import align_folder
from launch.assembly.run_folder import refuse_inside_set
from launch.errors import ExitCode

MOST_SHOWN = 20


def run(arguments: argparse.Namespace) -> int:
    """Align the pictures and return the exit code: 0 where each became a face, else that of bad data."""
    refuse_inside_set("--out", arguments.out, arguments.source)
    complaints = align_folder(
        arguments.source,
        arguments.landmarks,
        arguments.out,
        side=arguments.size,
        quality=arguments.quality,
        workers=arguments.workers,
        progress=True,
    )
    count = 0
    for count, complaint in enumerate(complaints, start=1):
        if count <= MOST_SHOWN:
            print(complaint)
    if count > MOST_SHOWN:
        print(f"... and {count - MOST_SHOWN:,} more")
    print(f"{arguments.out}  the aligned faces{f', without {count:,} that cannot be aligned' if count else ''}")
    return ExitCode.BAD_DATA if count else ExitCode.DONE
