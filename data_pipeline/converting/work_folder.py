"""Where a conversion grows, `OUT.partial`, so that a run that was killed can be gone on with.

conversion.json         what is converted, and how: no other conversion may go on here
parts/part-000000.npy   what the join must know of each image of a part: the bytes of its record, and its CRC-32
parts/part-000000.json  says that a part is done, and what is in it
parts/part-000000.rec   its records, until they are joined to set/train.rec
set/                    becomes OUT by one rename
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.converting.plan import Description
from data_pipeline.files.whole_file import WholeFile

COLUMNS = np.dtype([("record_bytes", "<i8"), ("crc32", "<u4")])


class Done(NamedTuple):
    """A part that is written: how many images, and how many bytes of records."""

    images: int
    record_bytes: int


class WorkFolder:
    """The folder in which `out` grows, for one process at a time.

    FileExistsError if `out` holds anything; ValueError if another conversion was begun here, which it describes.
    """

    def __init__(self, out: Path, description: Description) -> None:
        self.out = Path(os.path.realpath(out))
        self.path = self.out.with_name(f"{self.out.name}.partial")
        self.parts, self.set = self.path / "parts", self.path / "set"
        refuse_existing(out)
        conversion = self.path / "conversion.json"
        if self.path.exists() and not conversion.exists() and any(map(_is_foreign, self.path.iterdir())):
            raise FileExistsError(
                f"{self.path} exists and is no unfinished conversion: remove it or choose another --out"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        try:
            refuse_existing(out)  # by another process that had the lock until now
            if conversion.exists():
                self._check(json.loads(conversion.read_text(encoding="utf-8")), description)
            else:
                with WholeFile(conversion) as file:
                    file.write(json.dumps(description, indent=1).encode())
            if not self.set.exists():  # it has its name, or had: what is left here is of no use
                shutil.rmtree(self.parts, ignore_errors=True)
            for folder in (self.set, self.parts):
                folder.mkdir(exist_ok=True)
                for partial in folder.glob("*.partial"):
                    partial.unlink()
        except BaseException:
            self._lock.close()
            raise

    def done(self, part: int) -> Done | None:
        """What is known of a part that is written; None for one that is not."""
        try:
            found = json.loads(self._file(part, "json").read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        return Done(**found)

    def keep(self, part: int, columns: NDArray[np.void]) -> Done:
        """Notes that a part is written."""
        done = Done(columns.size, int(columns["record_bytes"].sum()))
        with WholeFile(self._file(part, "npy")) as file:
            np.save(file, columns)
        with WholeFile(self._file(part, "json")) as file:
            file.write(json.dumps(done._asdict()).encode())
        return done

    def columns(self, part: int) -> NDArray[np.void]:
        """What was kept of the images of a part."""
        columns: NDArray[np.void] = np.load(self._file(part, "npy"))
        return columns

    def records(self, part: int) -> Path:
        """The file of a part's records."""
        return self._file(part, "rec")

    def publish(self) -> None:
        """Gives the set its name, and removes the rest."""
        refuse_existing(self.out)
        self.set.rename(self.out)  # an empty folder of that name is replaced
        shutil.rmtree(self.path)

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    def _file(self, part: int, suffix: str) -> Path:
        return self.parts / f"part-{part:06d}.{suffix}"

    def _locked(self) -> BinaryIO:
        lock = (self.path / "lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise ValueError(f"{self.path}: another process is converting here; wait for it, or end it") from error
        except OSError:
            pass  # a file system without locks
        return lock

    def _check(self, begun: Description, asked: Description) -> None:
        differing = [name for name in begun.keys() | asked.keys() if begun.get(name) != asked.get(name)]
        if differing:
            told = ", ".join(f"{name} was {begun.get(name)} and is {asked.get(name)}" for name in sorted(differing))
            raise ValueError(
                f"{self.path} holds an unfinished conversion of another set, or of this one as it was, or by other "
                f"options ({told}): give the same command again, or remove that folder to begin anew"
            )


def _is_foreign(entry: Path) -> bool:
    """Whether a folder's entry is none of those that a run leaves which was killed before it began."""
    return entry.name != "lock" and not (entry.name.startswith("conversion.json.") and entry.suffix == ".partial")


def refuse_existing(out: Path) -> None:
    """Raises FileExistsError if `out` is there and no empty folder, ValueError if it cannot be put in place as one."""
    if out.is_dir() and os.path.ismount(out):
        raise ValueError(f"{out} is a mount point, which cannot appear at once: name a new folder in it")
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is never overwritten: remove it or choose another folder")
