"""The folder of a run: what it may not be, and who may write there."""

from __future__ import annotations

import fcntl
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from data_pipeline.formats.folders.file_source import IMAGE_SUFFIXES
from data_pipeline.formats.table.names import SUFFIXES as TABLE_SUFFIXES
from launch.config.loading import ConfigError
from launch.run_files import Owner, RunFiles

_SET_SUFFIXES = {".rec", ".idx", ".tar", ".bin", *TABLE_SUFFIXES, *IMAGE_SUFFIXES}
_POLL_SECONDS = 0.1


class RunFolder(RunFiles):
    """What a run, or an evaluation of it, leaves in the folder ``path``, and who may write there."""

    def refuse_unfit(self, sets: Iterable[Path]) -> None:
        """ConfigError where a run would write among other things, or move them aside: images, the folder one is in."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"run_dir {self.path} is a file: name a folder, a new one or that of an earlier run")
        real = self.path.resolve()
        if Path.cwd().is_relative_to(real):
            raise ConfigError(f"run_dir {self.path} is the folder this command runs in, or one around it: name another")
        for path in sets:
            refuse_inside_set("run_dir", self.path, path)
            if path.resolve().is_relative_to(real):
                raise ConfigError(
                    f"run_dir {self.path} contains the set {path}, which would be moved aside with an earlier run: "
                    "name another folder"
                )
        if not self.holds_run() and (image := _file_of_a_set(real)):
            raise ConfigError(
                f"run_dir {self.path} holds no run but {image}: name a new folder, or that of an earlier run"
            )

    @contextmanager
    def locked(self, patience_seconds: float = 0.0) -> Iterator[None]:
        """This folder, made if it is missing, for one process at a time; the lock ends with the process.

        Another process that has it is given ``patience_seconds`` to end. ValueError naming the process that keeps it;
        OSError where nothing can be written. A folder that was made here and stays empty is removed at the end: a start
        that is refused leaves nothing behind.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = _lock(self.lock, time.monotonic() + patience_seconds)
        except OSError as error:
            raise OSError(error.errno, f"run_dir {self.path} cannot be written: {error.strerror}") from error
        try:
            yield
        finally:
            self.lock.unlink(missing_ok=True)
            file.close()
            with suppress(OSError):  # the first that holds something, and so all around it
                for folder in made:
                    folder.rmdir()

    def set_aside(self) -> Path | None:
        """Where the earlier run in this folder was moved, ``path-1`` or the next free number; None if there was none.

        Two runs in one folder would mix their curves, and an evaluation could read the other's last checkpoint. The
        lock stays where it is.
        """
        if not self.holds_run():
            return None
        path = self.path.resolve() if self.path.is_symlink() else self.path
        numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
        aside = next(path for path in numbered if not os.path.lexists(path))
        aside.mkdir()
        for entry in [entry for entry in self.path.iterdir() if entry != self.lock]:
            entry.rename(aside / entry.name)
        if not self.lock.exists():
            self.path.rmdir()
        return aside


def refuse_inside_set(what: str, out: Path, images: Path) -> None:
    """ConfigError where ``out``, to be written for the option or key ``what``, is the folder ``images`` or in it."""
    if images.is_dir() and out.resolve().is_relative_to(images.resolve()):
        raise ConfigError(f"{what} {out} lies in the set {images}, which would be damaged: name a folder outside of it")


def _file_of_a_set(folder: Path) -> Path | None:
    files = itertools.chain(folder.glob("*.*"), folder.glob("*/*.*"))
    return next((file for file in files if file.suffix.lower() in _SET_SUFFIXES), None)


def _lock(path: Path, until_seconds: float) -> TextIO:
    """The file at ``path``, locked, with this process's name in it. ValueError where another process keeps the lock.

    ``until_seconds``: on the clock ``time.monotonic``.
    """
    waits = False
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read() or "another process"
            file.close()
            if time.monotonic() < until_seconds:
                if not waits:
                    print(f"{path.parent} is in use by {owner}: waiting for it to end", flush=True)
                waits = True
                time.sleep(_POLL_SECONDS)
                continue
            raise ValueError(
                f"{path.parent} is in use by {owner}: wait for that run, end it, or choose another run_dir"
            ) from error
        except OSError:
            pass  # a file system without locks
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                break
        file.close()  # the run before removed it between our two steps
    file.truncate(0)
    file.write(str(Owner.this_process()))
    file.flush()
    return file
