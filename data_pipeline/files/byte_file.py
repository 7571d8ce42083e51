"""A file read at any place by any thread, and the small reads that walk through one from front to back."""

import mmap
import os
import weakref
from pathlib import Path

WINDOW_BYTES = 1 << 18  # read at a time by a walk: some forty images of 6 kB and what lies between them


class ByteFile:
    """An open file, read by `pread`, which moves no position: from any thread or forked process.

    It is closed when nothing uses it any more, and so never under a thread that reads. FileNotFoundError for whatever
    is no regular file: to open a pipe would wait for its writer.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, or is no regular file")
        self.path = path
        self._fd = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._fd)
        self.size_bytes = os.fstat(self._fd).st_size

    def bytes_at(self, offset: int, size: int) -> bytes:
        """`size` bytes of the file; ValueError if it is shorter."""
        # Asked for first, as a damaged length could name more memory than there is.
        found = os.pread(self._fd, size, offset) if offset + size <= self.size_bytes else b""
        if len(found) != size:
            raise ValueError(
                f"{self.path}: {size} bytes at byte {offset} reach past its end: the file was cut short, or is "
                "damaged: copy it again"
            )
        return found

    def mapped(self) -> mmap.mmap:
        """The whole file as memory that is read where it is touched, for a walk that jumps; no empty file has any."""
        return mmap.mmap(self._fd, self.size_bytes, access=mmap.ACCESS_READ)

    def prefetch(self, offset: int, size: int) -> None:
        """Has the system read some bytes into its cache, and does not wait for them."""
        if size > 0:  # no bytes would mean: up to the end of the file
            os.posix_fadvise(self._fd, offset, size, os.POSIX_FADV_WILLNEED)


class Window:
    """The reads of a walk through `file` in small steps: one `pread` for many of them."""

    def __init__(self, file: ByteFile) -> None:
        self.file = file
        self._start, self._content = 0, b""

    def bytes_at(self, offset: int, size: int) -> bytes:
        """`size` bytes of the file; ValueError if it is shorter."""
        first = offset - self._start
        if not 0 <= first <= len(self._content) - size:
            ahead = min(WINDOW_BYTES, self.file.size_bytes - offset)
            self._content = self.file.bytes_at(offset, max(size, ahead))
            self._start, first = offset, 0
        return self._content[first : first + size]
