"""A folder whose files appear when all of them are whole, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write files into; at the end of the `with` block they are those of `out`, a `.rec` the last of them.

    On any error nothing is left. The folder lies beside `out`, or in it where `out` is there already. One process at a
    time has it: ValueError for another. What a process that was killed left in it is removed.
    """
    work = out / ".packing" if out.is_dir() else out.with_name(f"{out.name}.packing")
    work.mkdir(parents=True, exist_ok=True)
    lock = os.open(work, os.O_RDONLY)
    try:
        take_lock(lock, work)
        try:
            for left in work.iterdir():
                left.unlink()
            yield work
            _publish(work, out)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def take_lock(lock: int, work: Path) -> None:
    """Locks the folder `work`, open as `lock`, until that is closed. ValueError where another process has the lock."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(f"{work}: another process is writing here; wait for it, or end it") from error
    except OSError:
        pass  # a file system without locks


def _publish(work: Path, out: Path) -> None:
    if work.parent != out:
        work.rename(out)
        return
    for file in sorted(work.iterdir(), key=lambda file: file.suffix == ".rec"):
        file.rename(out / file.name)
    work.rmdir()
