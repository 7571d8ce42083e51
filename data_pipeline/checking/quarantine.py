"""The quarantine list: the samples of one set that training leaves out, each with its name and the reason.

A text file of tab-separated lines, samples ascending. A person may take lines out or add some; the last line says no
more than that the list is whole:

    # partial-fc quarantine of 4000 images, fingerprint 9c3a60b2
    sample <tab> name <tab> reason
    17 <tab> train.rec key 18 <tab> truncated: JPEG, no end mark (FF D9) in its 1,090 bytes
    # 1 listed

Sample numbers mean nothing in another set, so the list is bound to the set it was made for: by its count, and by the
bytes of some images spread evenly over it, which also tell a set from the same images in another order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.files.whole_file import WholeFile, WholeOrNothing
from data_pipeline.sets.fingerprint import fingerprint
from data_pipeline.source import Source

COLUMNS = "sample\tname\treason"
HEAD = re.compile(r"# partial-fc quarantine of (\d{1,18}) images, fingerprint ([0-9a-f]{8})")
TAIL = re.compile(r"# (\d{1,18}) listed")
HEAD_CHARACTERS = 200
LINE = re.compile(r"(\d{1,18})\t([^\t]*)\t(.+)")
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}  # no name may break a line


class Quarantined(NamedTuple):
    """One line: a sample, where it lies, and what is wrong with it."""

    sample: int
    name: str
    reason: str


def quarantined_samples(path: Path, source: Source) -> NDArray[np.int64]:
    """The listed samples, ascending and each once, to be left out of `source`.

    ValueError for a list of another set, a list cut short, and any line that is none; each says which.
    """
    return np.fromiter((line.sample for line in quarantined(path, source)), np.int64)


def is_made_for(path: Path, source: Source) -> bool:
    """Whether a list is of this very set. ValueError for a file that is no list."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return _made_for(path, file.readline(HEAD_CHARACTERS).rstrip("\r\n")) == (len(source), fingerprint(source))


def quarantined(path: Path, source: Source) -> Iterator[Quarantined]:
    """The lines of a list in the order of their samples; raises like :func:`quarantined_samples`."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        _check_head(path, file.readline(HEAD_CHARACTERS).rstrip("\r\n"), source)
        if (columns := file.readline(HEAD_CHARACTERS).rstrip("\r\n")) != COLUMNS:
            raise ValueError(f"{path} line 2: found {columns[:80]!r}, expected {COLUMNS!r}")
        count, last, is_whole = 0, -1, False
        for number, text in enumerate((line.rstrip("\r\n") for line in file), start=3):
            if TAIL.fullmatch(text) and not is_whole:
                is_whole = True
                continue
            line = _parsed(text)
            if line is None or is_whole or not last < line.sample < len(source):
                raise ValueError(
                    f"{path} line {number}: found {text[:80]!r}, expected `sample <tab> name <tab> reason` with a "
                    f"sample above {last} and below {len(source)}"
                )
            count, last = count + 1, line.sample
            yield line
        if not is_whole:
            raise ValueError(f"{path} has no last line `# {count} listed`: it was cut short; verify the set again")


class QuarantineWriter(WholeOrNothing):
    """A new list, which appears under its name when the `with` block ends, or not at all.

    An earlier list of that name is replaced; any other file is not: FileExistsError.
    """

    def __init__(self, path: Path, source: Source) -> None:
        self._source, self._count, self._last = source, 0, -1
        if path.exists() and not _is_list(path):
            raise FileExistsError(f"{path} exists and is no quarantine list: choose another name")
        head = f"# partial-fc quarantine of {len(source)} images, fingerprint {fingerprint(source)}"
        self._list = WholeFile(path)
        self._write(head)
        self._write(COLUMNS)

    def append(self, sample: int, reason: str) -> None:
        """Adds one sample, above all before it."""
        if not self._last < sample < len(self._source):
            raise ValueError(f"sample {sample}: expected one above {self._last} and below {len(self._source)}")
        if not reason:
            raise ValueError(f"sample {sample}: expected a reason to leave it out")
        cells = (str(sample), self._source.name(sample), reason)
        self._write("\t".join(cell.translate(CONTROLS) for cell in cells))
        self._count, self._last = self._count + 1, sample

    def close(self) -> None:
        """Completes the list and gives it its name; on any error removes it."""
        with self._list:
            self._write(f"# {self._count} listed")

    def discard(self) -> None:
        """Removes what was written so far."""
        self._list.discard()

    def _write(self, line: str) -> None:
        self._list.file.write(f"{line}\n".encode(errors="surrogateescape"))


def _is_list(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        return HEAD.fullmatch(file.readline(HEAD_CHARACTERS).rstrip("\r\n")) is not None


def _check_head(path: Path, line: str, source: Source) -> None:
    made_for, given = _made_for(path, line), (len(source), fingerprint(source))
    if made_for != given:
        raise ValueError(
            f"{path} was made for {made_for[0]:,} images of fingerprint {made_for[1]}, and this set has {given[0]:,} "
            f"of fingerprint {given[1]}: it is another set, or was changed; verify it again"
        )


def _made_for(path: Path, line: str) -> tuple[int, str]:
    """The count and the fingerprint of the set that a list with this first line is of."""
    head = HEAD.fullmatch(line)
    if head is None:
        raise ValueError(f"{path} begins with {line[:80]!r}: expected a list written by `partial-fc verify`")
    return int(head[1]), head[2]


def _parsed(text: str) -> Quarantined | None:
    match = LINE.fullmatch(text)
    return Quarantined(int(match[1]), match[2], match[3]) if match else None
