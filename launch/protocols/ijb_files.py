"""The files of IJB-B and IJB-C as the field passes them around.

::

    FOLDER/loose_crop/1.jpg ...                    the pictures
    FOLDER/meta/ijbc_name_5pts_score.txt           1.jpg, x and y of five landmarks, the detector's score
    FOLDER/meta/ijbc_face_tid_mid.txt              1.jpg, template, medium: of the same pictures, in the same order
    FOLDER/meta/ijbc_template_pair_label.txt       template, template, 1 or 0: 15.7 million lines
    FOLDER/meta/ijbc_1N_gallery_G1.csv, ..G2.csv   TEMPLATE_ID,SUBJECT_ID,...  (IJB-B: S1, S2)
    FOLDER/meta/ijbc_1N_probe_mixed.csv            the same
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
from numpy.typing import NDArray
from pyarrow import csv

from data_pipeline.aligning.landmarks import Landmarks, read_landmarks

BLOCK_BYTES = 8 << 20  # parsed at a time
PAIRS_IN_CHUNK = 1 << 24  # 150 MB; a chunk of IJB-C's size is scored at once
GALLERIES = (("G1", "G2"), ("S1", "S2"))
Numbers = NDArray[np.int64]


class IjbFolder(NamedTuple):
    """Where the files of one of the sets lie; ``name`` is what they begin with: ``ijbb`` or ``ijbc``."""

    root: Path
    name: str

    @property
    def pictures(self) -> Path:
        """The folder of the pictures."""
        return self.root / "loose_crop"

    def meta(self, rest: str) -> Path:
        """One of the lists."""
        return self.root / "meta" / f"{self.name}_{rest}"

    @property
    def pairs(self) -> Path:
        """The list of the 1:1 protocol."""
        return self.meta("template_pair_label.txt")

    @property
    def galleries(self) -> dict[str, Path]:
        """The lists of the 1:N protocol's two galleries, by name; none where neither is there."""
        every = [{name: self.meta(f"1N_gallery_{name}.csv") for name in names} for names in GALLERIES]
        return next((lists for lists in every if any(path.exists() for path in lists.values())), {})

    @property
    def probes(self) -> Path:
        """The list of the 1:N protocol's probes."""
        return self.meta("1N_probe_mixed.csv")


class Faces(NamedTuple):
    """The pictures with their landmarks, and of each the template and the medium it belongs to, (n,)."""

    landmarks: Landmarks
    templates: Numbers
    media: Numbers


def ijb_folder(root: Path) -> IjbFolder:
    """The set in ``root``. FileNotFoundError where the lists that every protocol needs are not there."""
    found = sorted((root / "meta").glob("*_face_tid_mid.txt"))
    if len(found) != 1:
        raise FileNotFoundError(
            f"{root / 'meta'} has {len(found)} files called *_face_tid_mid.txt: expected one, such as "
            "ijbc_face_tid_mid.txt, beside the other lists of IJB-B or IJB-C"
        )
    return IjbFolder(root, found[0].name.removesuffix("_face_tid_mid.txt"))


def read_faces(folder: IjbFolder) -> Faces:
    """The pictures of a set. ValueError where its two lists do not name the same ones in the same order."""
    landmarks = read_landmarks(folder.meta("name_5pts_score.txt"))
    path = folder.meta("face_tid_mid.txt")
    with _named(path):
        table = csv.read_csv(path, **_options(["name", "template", "medium"], " ", {"name": pyarrow.string()}))
    names = table["name"].to_pylist()
    for number, (name, other) in enumerate(zip(names, landmarks.names, strict=False), start=1):
        if name != other:
            raise ValueError(f"{path} line {number} names {name!r}, where the list of landmarks has {other!r}")
    if len(names) != len(landmarks.names):
        raise ValueError(f"{path} names {len(names):,} pictures, the list of landmarks {len(landmarks.names):,}")
    return Faces(landmarks, table["template"].to_numpy(), table["medium"].to_numpy())


def read_subjects(path: Path) -> dict[int, int]:
    """The subject of each template in a list of the 1:N protocol, whose lines may be one a picture.

    ValueError for a list without these columns, and for a template of two subjects.
    """
    with path.open(encoding="utf-8-sig") as file:
        names = file.readline().strip().split(",")
    lowered = [name.strip().strip('"').upper() for name in names]
    if lowered[:2] != ["TEMPLATE_ID", "SUBJECT_ID"]:
        raise ValueError(f"{path} begins with {','.join(names)[:80]!r}: expected TEMPLATE_ID,SUBJECT_ID,...")
    convert = csv.ConvertOptions(include_columns=names[:2], column_types=dict.fromkeys(names[:2], pyarrow.int64()))
    with _named(path):
        table = csv.read_csv(path, convert_options=convert)
    found = dict[int, int]()
    for template, subject in zip(table[0].to_pylist(), table[1].to_pylist(), strict=True):
        if found.setdefault(template, subject) != subject:
            raise ValueError(f"{path}: template {template} is of subject {found[template]} and of subject {subject}")
    return found


def pair_chunks(path: Path, rank: int = 0, size: int = 1) -> Iterator[tuple[Numbers, Numbers, NDArray[np.bool_]]]:
    """The pairs of the 1:1 protocol, (template, template, same) by chunks: those of the blocks that are ``rank``'s.

    0.2 us a pair, and memory for a chunk of 16 million. ValueError for a line that is none.
    """
    held = list[pyarrow.RecordBatch]()
    with _named(path):
        reader = csv.open_csv(path, **_options(["first", "second", "same"], " ", {}))
        for number, batch in enumerate(reader):
            if number % size == rank:
                held.append(batch)
            if sum(each.num_rows for each in held) >= PAIRS_IN_CHUNK:
                yield _pairs(held, path)
                held = []
    if held:
        yield _pairs(held, path)


def _pairs(batches: list[Any], path: Path) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
    table = pyarrow.Table.from_batches(batches)
    first, second, same = (table[name].to_numpy() for name in ("first", "second", "same"))
    if bad := set(np.unique(same).tolist()) - {0, 1}:
        raise ValueError(f"{path} says {min(bad)} of a pair: expected 1 for one person's, 0 for two persons'")
    return first, second, same == 1


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the parser with the file that they are of."""
    try:
        yield
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def _options(names: list[str], delimiter: str, types: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "read_options": csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES),
        "parse_options": csv.ParseOptions(delimiter=delimiter),
        "convert_options": csv.ConvertOptions(column_types={name: pyarrow.int64() for name in names} | dict(types)),
    }
