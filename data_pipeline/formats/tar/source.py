"""WebDataset's tar shards as a source with random access, and a writer of them."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.files.byte_file import ByteFile, Window
from data_pipeline.formats.tar.index import LabelFrom, tar_index
from data_pipeline.formats.tar.members import members
from data_pipeline.formats.tar.shard_names import shard_paths
from data_pipeline.source import Source

MOST_OPEN = 256  # shards held open; a process may hold 1024 files by default


class TarSource(Source):
    """The samples of tar shards in the order of the shards and of the members; see `shard_paths` for what names them.

    An image (jpg, jpeg, png, webp, bmp) has its label beside it: the digits in a `.cls`, or what a `.json` calls
    `label` (or `cls`, `class`, `identity`, ...); the first members tell which, unless `label_from` does. The first
    opening walks through all headers and keeps what it found in `tar-index-*.npz` beside the shards; later ones read
    that while the shards keep their sizes and times. Reading is one `pread`: safe from threads and from forked
    processes. Damage is a ValueError that names shard, byte and member.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path], *, label_from: LabelFrom | None = None) -> None:
        if label_from not in ("cls", "json", None):
            raise ValueError(f'label_from {label_from!r}: expected "cls" or "json"')
        self.files = shard_paths(paths)
        index = tar_index(self.files, label_from)
        self.labels, self._starts, self._sizes, self._leads = index[1:]
        self._ends: list[int] = index.ends.tolist()
        self._files: dict[int, ByteFile] = {}

    def read(self, sample: int) -> NDArray[np.uint8]:
        """The encoded bytes of one image, read-only."""
        content = self._file(self._shard(sample)).bytes_at(int(self._starts[sample]), int(self._sizes[sample]))
        return np.frombuffer(content, np.uint8)

    def prefetch(self, samples: NDArray[np.int64]) -> None:
        """Has the system read these images into its cache."""
        for sample in samples.tolist():
            self._file(self._shard(sample)).prefetch(int(self._starts[sample]), int(self._sizes[sample]))

    def name(self, sample: int) -> str:
        """The shard and the member of one image; the shard and a byte where the shard vanished or changed."""
        shard = self._shard(sample)
        entry = int(self._starts[sample]) - int(self._leads[sample])
        try:
            member = next(members(Window(self._file(shard)), entry)).name.decode(errors="backslashreplace")
        except (OSError, ValueError):
            member = f"byte {entry}"
        return f"{self.files[shard]} {member}"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_files": {}}

    def _shard(self, sample: int) -> int:
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        return bisect_right(self._ends, sample)

    def _file(self, shard: int) -> ByteFile:
        """An open shard. The first to be asked for stay open; the rest are opened for one read each, some 10 us."""
        file = self._files.get(shard)
        if file is None:
            file = ByteFile(self.files[shard])
            if len(self._files) < MOST_OPEN:
                file = self._files.setdefault(shard, file)  # of two threads that opened it the first has it
        return file
