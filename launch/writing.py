"""Files that a command writes: an error while writing says which file it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add ``path`` to an OSError of the block that names no file, as that of a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` in UTF-8; what no encoding has, such as a byte of a file name, is written as its escape."""
    with naming(path):
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
