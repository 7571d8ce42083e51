"""A text file that lists images, one a line, with their labels; `list_lines` says which forms it may have.

Paths are relative to the list's folder, or to another root that is given, or absolute. If the first label is a number
all must be; otherwise labels are names and become 0, 1, ... in the order of the names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
from numpy.typing import NDArray
from pyarrow import compute

from data_pipeline.files.arrow_texts import named_classes, packed
from data_pipeline.formats.folders.file_source import IMAGE_SUFFIXES, FileSource
from data_pipeline.formats.folders.list_lines import EXPECTED, ListLines, line_of, list_lines

MOST_DIGITS = 18  # of an int64
FILES_TRIED = 16  # when a list is opened: finds a wrong folder at once; a stat of each would take as long as an epoch


class ListSource(FileSource):
    """The images of a list in the order of its lines; the forms it may have are those of `list_lines`.

    Opening reads the list once, 0.4 us a line (0.6 us in im2rec's form), keeps the paths and tries 16 of the files.
    ValueError with the line's number for a line that is none and a label that is no number among numbers;
    FileNotFoundError with it for a file that is missing, when it is tried or read. A path may come twice. Labels need
    not be contiguous.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        self.list_path = Path(path)
        if not self.list_path.is_file():
            raise FileNotFoundError(f"{path} is missing; expected a list of images: {EXPECTED}")
        lines = list_lines(self.list_path)
        labels, identities = (
            named_classes(lines.labels) if lines.has_names else (_numbered(lines, self.list_path), None)
        )
        super().__init__(self.list_path.parent if root is None else root, packed(lines.paths), labels, identities)
        self._skipped, self.files = lines.skipped, (self.list_path,)
        for sample in np.unique(np.linspace(0, len(self) - 1, FILES_TRIED).astype(np.int64)):
            if not Path(self.path(int(sample))).is_file():
                raise FileNotFoundError(f"{self.name(int(sample))} is missing: {self._advice(int(sample))}")

    def _advice(self, sample: int) -> str:
        if sample == 0 and not self.paths[0].lower().endswith(tuple(IMAGE_SUFFIXES)):
            return (
                "if this line is a header, or the path stands in another column, let the first line name the columns, "
                "such as path,label"
            )
        return "paths are relative to the list's folder, or to a root that is given (--root, data.root)"

    def line(self, sample: int) -> int:
        """The number of the line, from 1, that names an image."""
        return line_of(sample, self._skipped)

    def name(self, sample: int) -> str:
        """The list, the line, and the path in it."""
        return f"{self.list_path}, line {self.line(sample)}: {self.path(sample)}"


def _numbered(lines: ListLines, path: Path) -> NDArray[np.int64]:
    """The labels, which are numbers, with or without zeros behind a point."""
    labels = lines.labels
    has_point = compute.equal(compute.count_substring(labels, "."), 1)
    if compute.any(has_point).as_py():
        labels = compute.if_else(has_point, compute.ascii_rtrim(compute.ascii_rtrim(labels, "0"), "."), labels)
    is_number = compute.and_(
        compute.ascii_is_decimal(labels), compute.less_equal(compute.binary_length(labels), MOST_DIGITS)
    ).to_numpy()
    if not is_number.all():
        row = int(is_number.argmin())
        found = lines.labels[row].as_buffer().to_pybytes()[:80]
        raise ValueError(
            f"{path}, line {line_of(row, lines.skipped)}: the label {found!r} is no number from 0 on, as the first "
            "line's is: mend it, or make every label a name"
        )
    numbers: NDArray[np.int64] = compute.cast(labels, pyarrow.int64()).to_numpy()
    return numbers
