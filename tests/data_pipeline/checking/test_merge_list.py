"""The merge list: written, read, and refused where it is another set's or damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.checking.merge_list import merged_labels, write_merge_list
from data_pipeline.source import Source


class Numbers(Source):
    def __init__(self, images: int) -> None:
        self.labels = np.arange(images)

    def read(self, sample: int) -> NDArray[np.uint8]:
        return np.full(4, sample, np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_merge_list(tmp_path / "merge.tsv", Numbers(9), [(5, 2, "Ann\tLee\n and \udcff"), (7, 5, "")])
    return tmp_path / "merge.tsv"


def test_a_list_is_read_as_it_was_written_whatever_names_hold(path: Path) -> None:
    assert merged_labels(path, Numbers(9)) == [(5, 2), (7, 5)]
    write_merge_list(path, Numbers(9), [])
    assert merged_labels(path, Numbers(9)) == [], "an earlier list is replaced"


def test_a_person_may_take_lines_out_and_add_some(path: Path) -> None:
    head, columns, _, second, tail = path.read_text(errors="surrogateescape").splitlines()
    path.write_text("\n".join([head, columns, second, "3\t1", tail]) + "\n")
    assert merged_labels(path, Numbers(9)) == [(7, 5), (3, 1)]


def test_the_list_of_another_set_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="made for another set"):
        merged_labels(path, Numbers(8))


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        (0, "# a note", "it is no merge list"),
        (2, "five\t2\tno number", "line 3: found 'five"),
        (4, None, "it was cut short"),
    ],
)
def test_damage_is_named(path: Path, line: int, instead: str | None, said: str) -> None:
    lines: list[str | None] = [*path.read_text(errors="surrogateescape").splitlines()]
    lines[line] = instead
    path.write_text("\n".join(each for each in lines if each is not None) + "\n", errors="surrogateescape")
    with pytest.raises(ValueError, match=said):
        merged_labels(path, Numbers(9))


def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "merge.tsv").write_text("my own notes")
    with pytest.raises(FileExistsError, match="is no merge list"):
        write_merge_list(tmp_path / "merge.tsv", Numbers(9), [])
