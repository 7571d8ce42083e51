"""The number under which an identity is found again: of its name or its number, whatever its label is by now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from encoded import FORMATS
from numpy.typing import NDArray

from data_pipeline.formats.by_path import source_at
from data_pipeline.sets.identities import write_identities
from data_pipeline.sets.identity_keys import identities_mark, identity_keys
from data_pipeline.sets.joined import JoinedSource
from data_pipeline.sets.noisy import NoisyLabels
from data_pipeline.sets.selected import SelectedSource, numbered_without_gaps
from data_pipeline.source import Source


class Labelled(Source):
    """Labels, and names of them, without an image."""

    def __init__(self, labels: Sequence[int], names: Sequence[str] | None = None) -> None:
        self.labels, self.identities = np.array(labels, np.int64), names

    def read(self, sample: int) -> NDArray[np.uint8]:
        raise OSError("no image")


def keys(source: Source, *paths: Path) -> list[int]:
    found = identity_keys(source, paths)
    assert found.dtype == np.int64
    assert len(set(found.tolist())) == len(found) == source.num_classes
    return [int(each) for each in found]


def of_names(*names: str) -> list[int]:
    return keys(Labelled(range(len(names)), names))


def test_numbers_are_their_own_keys_also_when_labels_are_numbered_anew() -> None:
    assert keys(Labelled([2, 0, 1])) == [0, 1, 2]
    assert keys(numbered_without_gaps(Labelled([10**12, 7, 7, 3]))) == [3, 7, 10**12]
    chosen = SelectedSource(numbered_without_gaps(Labelled([10**12, 7, 7, 3, 10**12])), least_images=2)
    assert keys(NoisyLabels(chosen, 0.5, seed=0)) == [7, 10**12]


def test_names_keep_their_keys_whatever_their_labels() -> None:
    ann, bob, cid = of_names("Ann Lee", "bob", "cid")
    assert of_names("Ann Lee", "alf", "bob", "cid")[2:] == [bob, cid]
    assert keys(SelectedSource(Labelled([0, 1, 1, 2, 2], ["Ann Lee", "bob", "cid"]), least_images=2)) == [bob, cid]
    assert keys(JoinedSource([Labelled([0, 1], ["bob", "dan"]), Labelled([0], ["Ann Lee"])], "merge"))[:2] == [ann, bob]


def test_a_name_that_is_a_number_is_that_number_and_no_other_name_is() -> None:
    assert of_names("12", "7", "0") == [12, 7, 0]
    written_otherwise = of_names("012", "07", "00", "-7", "7.0", "٧", "1" * 19)
    assert not {12, 7, 0} & set(written_otherwise)
    assert min(map(abs, written_otherwise)) > 10**9


def test_labels_of_one_name_are_told_apart() -> None:
    first, other, second, third = of_names("Ann", "bob", "Ann", "Ann")
    assert [first, other] == of_names("Ann", "bob")
    assert len({first, second, third}) == 3


def test_names_beside_the_files_are_as_good_as_the_folders(tmp_path: Path) -> None:
    """A set packed or converted has the keys of the folders it was made of."""
    for name in ("Ann Lee", "b\udcffb", "7"):
        (tmp_path / "folders" / name).mkdir(parents=True)
        (tmp_path / "folders" / name / "1.jpg").write_bytes(FORMATS["JPEG"][1])
    folders = source_at(tmp_path / "folders")
    assert folders.identities is not None
    (tmp_path / "packed").mkdir()
    write_identities(tmp_path / "packed", [(label, name, 1) for label, name in enumerate(folders.identities)])
    numbers = Labelled(folders.labels.tolist())
    assert keys(numbers, tmp_path / "packed") == keys(numbers, tmp_path / "packed" / "train.rec") == keys(folders)
    assert keys(SelectedSource(Labelled([0, 1, 5]), left_out=[0]), tmp_path / "packed") == [keys(folders)[1], 5]
    assert keys(numbers) == [0, 1, 2]


def test_joined_by_offset_each_set_is_a_world_of_its_own(tmp_path: Path) -> None:
    first, second, named = Labelled([0, 1, 2]), Labelled([0, 1]), Labelled([0, 1], ["Ann", "bob"])
    alone, both = keys(JoinedSource([first])), keys(JoinedSource([first, second, named]))
    assert both[:3] == alone == [0, 1, 2]
    grown = keys(JoinedSource([Labelled([0, 1, 2, 3]), second, named]))
    assert grown[4:] == both[3:], "a set that grows moves the labels of those behind it, and not their keys"
    write_identities(tmp_path, [(0, "Ann", 1), (1, "bob", 1)])
    beside = keys(JoinedSource([first, second, second]), Path("none"), Path("none"), tmp_path)
    assert beside == both


def test_the_mark_tells_other_identities_and_another_order() -> None:
    given = identity_keys(Labelled([0, 1, 2]))
    assert identities_mark(given) == identities_mark(given.copy())
    assert len({identities_mark(given), identities_mark(given[::-1]), identities_mark(given[:2])}) == 3
