"""A file that appears under its name when it is whole, or not at all."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self


class WholeOrNothing:
    """A `with` block around what is written: completed where the block ends, removed where it ends with an error."""

    def close(self) -> None:
        """Completes what was written; on any error removes it."""
        raise NotImplementedError

    def discard(self) -> None:
        """Removes what was written so far."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


class WholeFile:
    """A new file, open for writing, that appears under its name when its `with` block ends, or not at all.

    Until then it grows in a `.partial` beside it, another one for each process and thread. The file takes the place of
    any other of its name; unless `replaces`: then FileExistsError, at the beginning and at the end.
    """

    def __init__(self, path: Path, *, replaces: bool = True) -> None:
        self.path, self._replaces = path, replaces
        self._refuse_to_replace()
        self._partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
        self.file: BinaryIO = self._partial.open("wb")

    def keep(self) -> None:
        """Gives the file its name; on any error removes it."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            self._refuse_to_replace()
            self._partial.replace(self.path)
        except BaseException as error:
            self._name_in(error)
            self.discard()
            raise

    def discard(self) -> None:
        """Removes what was written so far."""
        with suppress(OSError):  # a full disk says so once more
            self.file.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> BinaryIO:
        return self.file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.keep()
        else:
            self._name_in(error)
            self.discard()

    def _name_in(self, error: BaseException | None) -> None:
        """Adds the file to the error of a full disk, which names none."""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            error.filename = str(self.path)

    def _refuse_to_replace(self) -> None:
        if not self._replaces:
            refuse_existing(self.path)


def refuse_existing(path: Path) -> None:
    """Raises FileExistsError if there is a file at `path`."""
    if path.exists():
        raise FileExistsError(f"{path} exists and is never overwritten: remove it or choose another name")
