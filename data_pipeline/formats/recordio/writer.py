"""Writes `.rec` and `.idx`."""

from array import array
from pathlib import Path

from data_pipeline.files.whole_file import WholeFile, WholeOrNothing, refuse_existing
from data_pipeline.formats.recordio.layout import (
    fits_insightface,
    identity_records,
    image_record,
    index_lines,
)


class RecordWriter(WholeOrNothing):
    """A new `.rec` and the `.idx` beside it; both appear under their names when the `with` block ends, or not at all.

    Labels that come grouped (all images of a class in a row) give the InsightFace layout. Labels that do not, or more
    than 2**24 records, whose numbers its float32 header could not hold, give the im2rec layout.
    Raises FileExistsError if either file exists.
    """

    def __init__(self, path_rec: Path) -> None:
        self.path_rec = Path(path_rec)
        self.path_idx = self.path_rec.with_suffix(".idx")
        if self.path_idx == self.path_rec:
            raise ValueError(f"{self.path_rec}: that name belongs to the index; expected one such as train.rec")
        refuse_existing(self.path_idx)
        self._rec, self._idx = (WholeFile(path, replaces=False) for path in (self.path_rec, self.path_idx))
        self._offsets = array("q")
        self._runs: list[tuple[int, int]] = []  # label and first image key of each row of equal labels

    def append(self, label: int, image: bytes) -> None:
        """Writes one encoded image of class `label`, 0 <= label <= 2**24."""
        key = len(self._offsets) + 1
        self._write(image_record(label, key, image))
        if not self._runs or self._runs[-1][0] != label:
            self._runs.append((label, key))

    def close(self) -> None:
        """Completes both files and gives them their names; on any error removes them."""
        with self._idx as idx, self._rec:  # the .rec gets its name first: it can be read without the .idx
            has_header = self._write_identities()
            lines = index_lines(self._offsets, len(self._offsets), has_header=has_header)
            idx.writelines(map(str.encode, lines))
            refuse_existing(self.path_idx)

    def discard(self) -> None:
        """Removes what was written so far."""
        self._rec.discard()
        self._idx.discard()

    def _write_identities(self) -> bool:
        """Writes what the InsightFace layout adds to the images; False, and nothing, where it could not be true."""
        num_images, num_runs = len(self._offsets), len(self._runs)
        if num_images == 0:
            raise ValueError(f"{self.path_rec}: no image was appended; a record file needs at least one")
        is_grouped = len({label for label, _ in self._runs}) == num_runs
        if not is_grouped or not fits_insightface(num_images, num_runs):
            return False
        for record in identity_records([first for _, first in self._runs], num_images):
            self._write(record)
        return True

    def _write(self, record: bytes) -> None:
        self._offsets.append(self._rec.file.tell())
        self._rec.file.write(record)
