"""The part of a checkpoint that runs beside the training: one rank's files, written by a thread."""

from __future__ import annotations

import errno
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from partial_fc.checkpoint import layout
from partial_fc.checkpoint.layout import CheckpointFolder, FileFacts, Manifest
from partial_fc.checkpoint.tensor_file import SummedFile, write_tensor_file

_POLL_SECONDS = 0.02
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was written: of all ranks the bytes, of this rank how long training paused and writing took.

    ``in_parts``: training waited for the writing, too, and the pause is of both. The checkpoint was whole at
    ``timestamp_seconds`` since 1970.
    """

    path: Path
    step: int
    size_bytes: int
    pause_seconds: float
    writing_seconds: float
    in_parts: bool
    timestamp_seconds: float


class Tensors(NamedTuple):
    """What one rank writes; rank 0 what is one for all ranks as well."""

    of_rank: dict[str, Tensor]
    shared: dict[str, Tensor]
    backbone: dict[str, Tensor]


class Writing:
    """One rank's part of a checkpoint, written by a thread; ``in_parts`` says that the training waits for it."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        tensors: Tensors,
        rank: int,
        finished: Callable[[Saved], None],
        *,
        in_parts: bool,
    ) -> None:
        self.folder, self.manifest, self.tensors, self.in_parts = folder, manifest, tensors, in_parts
        self.rank, self.size, self._finished = rank, manifest.world_size, finished
        self.partial = CheckpointFolder(layout.partial_folder(folder, manifest.step))
        self._own_done, self._given_up = threading.Event(), threading.Event()
        self._own_error: Exception | None = None
        self._commit_error: Exception | None = None

    def start(self, paused_at: float) -> None:
        """Begin to write; training stands still since ``paused_at``, a time of ``perf_counter``."""
        self._paused_at, self._began = paused_at, time.perf_counter()
        self._thread = threading.Thread(target=self._run, name=f"checkpoint {self.manifest.step}", daemon=True)
        self._thread.start()

    def own_failure(self) -> Exception | None:
        """What kept this rank's own files from being written, when they are written."""
        self._own_done.wait()
        return self._own_error

    def failure_of_commit(self) -> Exception | None:
        """What kept rank 0 from finishing the checkpoint, when it is finished; None on other ranks."""
        self._thread.join()
        return self._commit_error

    def give_up(self) -> None:
        """Wait for no other rank's files any more."""
        self._given_up.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._write_own()
        except Exception as error:
            self._own_error = error
        self._own_done.set()
        if self.rank == 0 and self._own_error is None:
            try:
                self._finish()
            except Exception as error:
                self._commit_error = error

    def _write_own(self) -> None:
        facts = {write_tensors(self.partial.rank(self.rank, self.size), self.tensors.of_rank)}
        if self.rank == 0:
            facts.add(write_tensors(self.partial.shared, self.tensors.shared))
            facts.add(write_backbone(self.partial.backbone, self.tensors.backbone))
        layout.write_whole(self._note(self.rank), json.dumps({name: asdict(fact) for name, fact in facts}))

    def _finish(self) -> None:
        """Rank 0, when every rank has noted its files."""
        notes = [self._note(rank) for rank in range(self.size)]
        while not all(note.exists() for note in notes):
            if self._given_up.wait(_POLL_SECONDS):
                shutil.rmtree(self.partial.path, ignore_errors=True)
                return
        for note in notes:
            facts = json.loads(note.read_text(encoding="utf-8"))
            self.manifest.files.update({name: FileFacts(**values) for name, values in facts.items()})
            note.unlink()
        self.partial.write_manifest(self.manifest)
        final = layout.commit(self.folder, self.manifest.step)
        size_bytes = sum(facts.size_bytes for facts in self.manifest.files.values())
        ended, timestamp_seconds = time.perf_counter(), time.time()
        pause_seconds = (ended if self.in_parts else self._began) - self._paused_at
        self._finished(
            Saved(
                path=final,
                step=self.manifest.step,
                size_bytes=size_bytes,
                pause_seconds=pause_seconds,
                writing_seconds=ended - self._began,
                in_parts=self.in_parts,
                timestamp_seconds=timestamp_seconds,
            )
        )

    def _note(self, rank: int) -> Path:
        return self.partial.path / f"rank-{rank:05d}.json"


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> tuple[str, FileFacts]:
    """Write a safetensors file to the disk; its name, and what the manifest says of it. OSError where it is full."""
    with _full_disk_named(path, tensors):
        return path.name, write_tensor_file(path, tensors)


def write_backbone(path: Path, state: dict[str, Tensor]) -> tuple[str, FileFacts]:
    """Write a state dict as arcface_torch's tools read it; its name, and what the manifest says of it.

    From a GPU it is copied first: what is written belongs to no device. OSError where the disk is full.
    """
    with _full_disk_named(path, state), SummedFile(path) as file:
        torch.save({name: tensor.cpu() for name, tensor in state.items()}, file)  # type: ignore[arg-type]  # it writes
    return path.name, file.facts()


@contextmanager
def _full_disk_named(path: Path, tensors: dict[str, Tensor]) -> Iterator[None]:
    """OSError with the file and the bytes where a disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        needed, free = sum(tensor.nbytes for tensor in tensors.values()), shutil.disk_usage(path.parent).free
        raise OSError(
            f"no space for {path}: it needs {needed:,} bytes, and {free:,} are free. What was saved before is whole"
        ) from error
