"""``partial-fc checkpoint``: which checkpoints a run has, what they hold, whether they are whole; one exported."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from launch.assembly.moved_out import export_of
from launch.assembly.run_folder import RunFolder
from launch.errors import ExitCode
from launch.units import bytes_text
from partial_fc.checkpoint.exporting import write_folder
from partial_fc.checkpoint.layout import CheckpointFolder, Manifest, whole_checkpoints


def run(arguments: argparse.Namespace) -> int:
    """Answer the question and return the exit code: that of bad data where a checkpoint is damaged."""
    checkpoints = _checkpoints(arguments.path)
    if arguments.action == "show":
        _show(checkpoints[-1])
        return 0
    if arguments.action == "export":
        _export(checkpoints[-1], arguments.out, arguments.ranks)
        return 0
    return _look_through(checkpoints, reads=arguments.action == "verify")


def _checkpoints(path: Path) -> list[CheckpointFolder]:
    """Those of a run, by rising step, or the one at ``path``. ValueError where there is none."""
    folder = RunFolder(path).checkpoints
    found = whole_checkpoints(folder) if folder.is_dir() else [CheckpointFolder(path)]
    if not found:
        raise ValueError(f"{folder} holds no whole checkpoint: a run writes one every save_every_steps, and at its end")
    if not folder.is_dir():
        found[0].manifest()  # says what it is not
    return found


def _look_through(checkpoints: Sequence[CheckpointFolder], *, reads: bool) -> int:
    table = Table(*(Column(name, no_wrap=True) for name in ("folder", "saved", "ranks", "head", "size", "state")))
    problems = {checkpoint.path: checkpoint.problems(reads=reads) for checkpoint in checkpoints}
    for checkpoint in checkpoints:
        found = problems[checkpoint.path]
        told = "damaged" if found else "verified" if reads else "whole"
        table.add_row(checkpoint.path.name, *_sizes(checkpoint), told)
    Console(highlight=False, markup=False).print(table)
    for found in problems.values():
        print(*found, sep="\n", end="\n" if found else "")
    return ExitCode.BAD_DATA if any(problems.values()) else ExitCode.DONE


def _sizes(checkpoint: CheckpointFolder) -> tuple[str, ...]:
    try:
        manifest = checkpoint.manifest()
    except ValueError:
        return ("?",) * 4
    return (
        _saved(checkpoint),
        f"{manifest.world_size}",
        f"{manifest.num_classes:,} x {manifest.embedding_dim}",
        bytes_text(sum(file.size_bytes for file in manifest.files.values())),
    )


def _show(checkpoint: CheckpointFolder) -> None:
    manifest = checkpoint.manifest()
    print(checkpoint.path)
    print(f"saved {_saved(checkpoint)} after step {manifest.step:,} by {_ranks(manifest)}")
    files = Table("file", "bytes", "CRC-32", "classes")
    of_rank = {checkpoint.rank(rank, manifest.world_size).name: part for rank, part in enumerate(manifest.classes)}
    for name, facts in manifest.files.items():
        part = of_rank.get(name)
        classes = f"{part[0]:,} to {part[1] - 1:,}" if part and part[0] < part[1] else ""
        files.add_row(name, f"{facts.size_bytes:,}", f"{facts.crc32:08x}", classes)
    Console(highlight=False, markup=False).print(files)
    print(json.dumps(manifest.facts, indent=2, ensure_ascii=False))


def _export(checkpoint: CheckpointFolder, out: Path, ranks: int | None) -> None:
    export, remarks = export_of(checkpoint)
    manifest = export.manifest
    ranks = manifest.world_size if ranks is None else ranks
    write_folder(export, out, ranks)
    print(*remarks, sep="\n", end="\n" if remarks else "")
    files = f"model.pt and checkpoint_gpu_0.pt to _{ranks - 1}.pt" if manifest.num_classes else "model.pt alone"
    optimizer = f" with {export.course.optimizer}'s state" if export.course else ""
    print(f"{out}  {files}{optimizer}, at epoch {export.epoch}, step {manifest.step:,}")


def _ranks(manifest: Manifest) -> str:
    if not manifest.world_size:
        return "an import of a backbone, without class rows"
    return (
        f"{manifest.world_size} rank{'s' * (manifest.world_size > 1)}: "
        f"{manifest.num_classes:,} classes of {manifest.embedding_dim} dimensions"
    )


def _saved(checkpoint: CheckpointFolder) -> str:
    """When, by the clock of this place."""
    moment = datetime.fromtimestamp(checkpoint.manifest_file.stat().st_mtime).astimezone()
    return f"{moment:%Y-%m-%d %H:%M}"
