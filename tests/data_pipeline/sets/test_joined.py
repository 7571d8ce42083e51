import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.formats.folders.folder import FolderSource
from data_pipeline.formats.folders.image_list import ListSource
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.sets.joined import Join, JoinedSource
from data_pipeline.source import Source


class Numbers(Source):
    """A source as small as the protocol allows: images are their own number."""

    def __init__(self, *labels: int) -> None:
        self.labels = np.array(labels, np.int64)

    def read(self, sample: int) -> NDArray[np.uint8]:
        return np.frombuffer(b"%d" % sample, np.uint8)


def records(path_rec: Path, *labels: int) -> RecordSource:
    with RecordWriter(path_rec) as writer:
        for label in labels:
            writer.append(label, f"{path_rec.stem}{label}".encode())
    return RecordSource(path_rec)


def folder(root: Path, *identities: str) -> FolderSource:
    for identity in identities:
        (root / identity).mkdir(parents=True)
        (root / identity / "1.jpg").write_bytes(f"{root.name} {identity}".encode())
    return FolderSource(root)


def contents(source: JoinedSource) -> list[tuple[int, bytes]]:
    return [(source.label(sample), source.read(sample).tobytes()) for sample in range(len(source))]


def test_offset_labels_begin_where_those_of_the_set_before_end(tmp_path: Path) -> None:
    joined = JoinedSource([records(tmp_path / "a.rec", 0, 0, 2), records(tmp_path / "b.rec", 1, 0)])
    assert contents(joined) == [(0, b"a0"), (0, b"a0"), (2, b"a2"), (4, b"b1"), (3, b"b0")]
    assert (joined.num_classes, joined.labels.dtype.name) == (5, "int64")


def test_a_class_without_images_at_the_end_of_a_set_keeps_its_place(tmp_path: Path) -> None:
    sparse = Numbers(0, 1)
    sparse.num_classes = 4
    assert JoinedSource([sparse, Numbers(0), sparse]).num_classes == 9
    assert JoinedSource([sparse, Numbers(0), sparse]).labels.tolist() == [0, 1, 4, 5, 6]


def test_merged_numbers_are_the_same_identities(tmp_path: Path) -> None:
    joined = JoinedSource([records(tmp_path / "a.rec", 0, 2), records(tmp_path / "b.rec", 2, 1)], "merge")
    assert contents(joined) == [(0, b"a0"), (2, b"a2"), (2, b"b2"), (1, b"b1")]
    assert joined.num_classes == 3


def test_merged_names_are_the_same_identities_whatever_numbers_each_set_gave_them(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("one/bob/1.jpg\tann\none/bob/1.jpg\tdan\n")
    one, two = folder(tmp_path / "one", "bob", "carl"), folder(tmp_path / "two", "ann", "carl")
    joined = JoinedSource([one, two, ListSource(tmp_path / "list.txt")], "merge")
    order = ["ann", "bob", "carl", "dan"]
    assert [order[label] for label in joined.labels] == ["bob", "carl", "ann", "carl", "ann", "dan"]
    assert joined.read(3).tobytes() == b"two carl"


def test_names_and_numbers_cannot_be_merged_but_offset(tmp_path: Path) -> None:
    sets: list[Source] = [folder(tmp_path / "one", "ann"), records(tmp_path / "a.rec", 0, 2)]
    with pytest.raises(ValueError, match="set 2 of 2 has numbers for labels and another has names"):
        JoinedSource(sets, "merge")
    assert JoinedSource(sets, "offset").labels.tolist() == [0, 1, 3]


def test_the_place_of_an_image_is_its_own_sets(tmp_path: Path) -> None:
    joined = JoinedSource([records(tmp_path / "a.rec", 0, 2), Numbers(0, 1)])
    assert joined.name(1) == f"{tmp_path / 'a.rec'} key 2"
    assert joined.name(3) == "sample 1"


@pytest.mark.parametrize("sample", [-1, 4])
def test_a_sample_outside_is_an_error(tmp_path: Path, sample: int) -> None:
    with pytest.raises(IndexError, match="of 4"):
        JoinedSource([Numbers(0, 1), Numbers(0, 1)]).read(sample)


@pytest.mark.parametrize("join", ["offset", "merge"])
def test_a_pickled_source_reads_the_same(tmp_path: Path, join: Join) -> None:
    joined = JoinedSource([records(tmp_path / "a.rec", 0, 2), records(tmp_path / "b.rec", 1, 0)], join)
    assert contents(pickle.loads(pickle.dumps(joined))) == contents(joined)


def test_nothing_to_join_and_an_unknown_way_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one"):
        JoinedSource([])
    with pytest.raises(ValueError, match="expected 'offset' or 'merge'"):
        JoinedSource([Numbers(0)], "append")  # type: ignore[arg-type]
