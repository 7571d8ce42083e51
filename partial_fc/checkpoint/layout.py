"""Where the files of a checkpoint lie, and the manifest that says what they hold.

::

    checkpoints/
        step-00001234/                           appears under its name when it is whole: written beside, then renamed
            manifest.json                        step, sizes, digests, bytes and CRC-32 of every file; no tensors
            backbone.pt                          a plain state dict with arcface_torch's keys
            shared.safetensors                   what is one for all ranks: the backbone's optimizer, the objective
            rank-00000-of-00002.safetensors      a rank's class rows, whose they are, optimizer state, BatchNorm, RNG
        latest -> step-00001234                  replaced last
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

VERSION = 2
_CHUNK_BYTES = 16 << 20
STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class FileFacts:
    """How many bytes a file has, and their CRC-32."""

    size_bytes: int
    crc32: int

    @classmethod
    def of(cls, path: Path) -> FileFacts:
        """Those of a file as it lies there. Reads all of it."""
        crc, size = 0, 0
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                crc, size = zlib.crc32(chunk, crc), size + len(chunk)
        return cls(size, crc)


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds. ``classes``: first and last class id, exclusive, of each rank that wrote it.

    ``facts`` are the trainer's: the configuration, digests of it and of the data.
    """

    step: int
    head_steps: int
    num_classes: int
    embedding_dim: int
    classes: Sequence[tuple[int, int]]
    files: dict[str, FileFacts]
    facts: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @property
    def world_size(self) -> int:
        """How many ranks wrote the checkpoint."""
        return len(self.classes)


def is_of_arcface_torch(folder: Path) -> bool:
    """Whether arcface_torch left a training or a network in ``folder``."""
    return any((folder / name).exists() for name in ("model.pt", "checkpoint_gpu_0.pt"))


class OtherVersionError(ValueError):
    """A checkpoint of another version of this program."""


class CheckpointFolder:
    """The files of one checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest_file = path / "manifest.json"
        self.backbone = path / "backbone.pt"
        self.shared = path / "shared.safetensors"

    @property
    def step(self) -> int:
        """Of the name, ``step-N``. ValueError where it has another."""
        if (named := STEP.fullmatch(self.path.name)) is None:
            raise ValueError(f"{self.path} is not called step-N")
        return int(named[1])

    def rank(self, rank: int, size: int) -> Path:
        """The tensors of one of ``size`` ranks."""
        return self.path / f"rank-{rank:05d}-of-{size:05d}.safetensors"

    def manifest(self) -> Manifest:
        """What the checkpoint says of itself. ValueError for what is no checkpoint, or one of another version."""
        if not self.manifest_file.is_file():
            importing = f"; partial-fc import arcface_torch {self.path} --out RUN makes a run of it"
            raise ValueError(
                f"{self.path} is no checkpoint: expected a folder with manifest.json, or a run's folder"
                f"{importing if is_of_arcface_torch(self.path) else ''}"
            )
        try:
            tree = json.loads(self.manifest_file.read_text(encoding="utf-8"))
            version = tree["version"]
            if version == VERSION:
                files = {name: FileFacts(**facts) for name, facts in tree.pop("files").items()}
                classes = [(first, stop) for first, stop in tree.pop("classes")]
                return Manifest(**tree, classes=classes, files=files)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.manifest_file} is no manifest of a checkpoint: {error!r}") from error
        raise OtherVersionError(
            f"{self.path} is a checkpoint of version {version}: this program reads version {VERSION}"
        )

    def write_manifest(self, manifest: Manifest) -> None:
        """Write and sync it."""
        write_whole(self.manifest_file, json.dumps(asdict(manifest), indent=1) + "\n")

    def problem(self, path: Path, facts: FileFacts, *, reads: bool = True) -> str | None:
        """What is wrong with a file of the checkpoint, or None; without ``reads`` only its size is looked at."""
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != facts.size_bytes:
            return f"{path} has {path.stat().st_size:,} bytes, and the manifest says {facts.size_bytes:,}"
        if reads and FileFacts.of(path) != facts:
            return f"{path} is damaged: its CRC-32 is not the manifest's"
        return None

    def problems(self, *, reads: bool = True) -> list[str]:
        """What is wrong with the whole checkpoint. OSError where the disk does not say."""
        try:
            files = self.manifest().files
        except ValueError as error:
            return [str(error)]
        found = (self.problem(self.path / name, facts, reads=reads) for name, facts in files.items())
        return [problem for problem in found if problem is not None]


def step_folder(checkpoints: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return checkpoints / f"step-{step:08d}"


def partial_folder(checkpoints: Path, step: int) -> Path:
    """Where a step's checkpoint is written until it is whole."""
    return checkpoints / f"step-{step:08d}.partial"


def whole_checkpoints(checkpoints: Path) -> list[CheckpointFolder]:
    """The checkpoints that were written to their end, by rising step."""
    folders = sorted(path for path in checkpoints.glob("step-*") if STEP.fullmatch(path.name))
    return [CheckpointFolder(path) for path in folders if (path / "manifest.json").is_file()]


def latest_checkpoint(checkpoints: Path) -> Path:
    """The whole checkpoint of the highest step. FileNotFoundError when there is none."""
    whole = whole_checkpoints(checkpoints)
    if not whole:
        raise FileNotFoundError(f"no checkpoint in {checkpoints}: expected a folder step-N with a manifest.json")
    return whole[-1].path


def commit(checkpoints: Path, step: int) -> Path:
    """Give the step's checkpoint its name, and let ``latest`` point to it; every byte is on the disk before."""
    partial, final = partial_folder(checkpoints, step), step_folder(checkpoints, step)
    sync_folder(partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    point(checkpoints / "latest", final)
    return final


def name_best(checkpoints: Path, step: int) -> bool:
    """Let ``best``, which is never pruned, point to the step's checkpoint; False where that is not whole yet."""
    final = step_folder(checkpoints, step)
    if not CheckpointFolder(final).manifest_file.is_file():
        return False
    point(checkpoints / "best", final)
    return True


def point(link: Path, folder: Path) -> None:
    """Let ``link`` point to ``folder``, which lies beside it: whole or not there, as every file of a checkpoint."""
    partial = link.with_name(f".{link.name}.{threading.get_ident()}.partial")  # a save's thread may do the same
    partial.unlink(missing_ok=True)
    partial.symlink_to(folder.name)
    partial.replace(link)
    sync_folder(link.parent)


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` to the disk; the file appears under its name when it is whole."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    sync(partial)
    partial.replace(path)


def sync(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
