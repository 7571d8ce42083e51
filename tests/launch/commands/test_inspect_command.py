"""``partial-fc inspect`` as users meet it: what it prints, and the page and the picture it writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from html_page import Page
from PIL import Image

from data_pipeline.formats.verification_bin.writer import write_bin
from launch import cli
from launch.pages.inspection import histogram


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tiny.write_records(tmp_path / "<b>set</b>" / "train.rec", range(3), damaged=[10])


def test_a_set_is_described_on_screen(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(records)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for part in ("RecordIO", "24", "8 to 8, median 8, mean 8.0", "24 x 24, all", "PNG 23", "all images"):
        assert part in printed, part
    assert "1 of 24 images looked at cannot be used (1 truncated)" in printed
    assert sorted(path.name for path in records.parent.iterdir()) == ["train.idx", "train.rec"], "nothing is written"


def test_a_part_of_a_set_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_records(tmp_path / "more" / "train.rec", range(12))
    assert cli.main(["inspect", str(tmp_path / "more"), "--images", "3", "--seed", "5"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"8\d images, drawn by rule", printed), "those of ten identities that a page would show, too"
    assert "about " in printed
    assert "nothing wrong was found" in printed


def test_the_page_needs_nothing_else_and_says_what_the_screen_says(records: Path, tmp_path: Path) -> None:
    assert cli.main(["inspect", str(records), "--out", str(tmp_path / "out")]) == 0
    page = Page(tmp_path / "out" / "inspection.html")
    assert not re.search(r"https?:|@import|<script|<link|<iframe", re.sub(r"base64,[^\"]*", "", page.source))
    assert page.text.count(f"{records}") >= 2, "text from outside is text"
    for part in ("Identities", "Images per identity", "24 x 24", "PNG", "1 of 24 images looked at cannot be used"):
        assert part in page.text
    assert len(page.named("img")) == 3
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,/9j/") for image in page.named("img"))
    (figure,) = page.named("svg")
    assert figure["aria-label"]


def test_the_contact_sheet_has_a_row_for_each_identity(records: Path, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        assert cli.main(["inspect", str(records), "--out", str(tmp_path / folder)]) == 0
    first, second = (tmp_path / folder / "contact_sheet.png" for folder in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as picture:
        assert picture.width > 8 * 96
        assert picture.height > 3 * 96


def test_a_verification_set_is_said_to_be_pairs_with_derived_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [tiny.encoded(identity, 0) for identity in (0, 1, 2, 3, 4, 4)]
    write_bin(tmp_path / "tiny.bin", images, [True, False, False])
    assert cli.main(["inspect", str(tmp_path / "tiny.bin"), "--out", str(tmp_path / "out")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    page = Page(tmp_path / "out" / "inspection.html").text
    for said in (printed, page):
        assert "a verification set of pairs" in said
        assert "3 pairs, 1 of one person and 2 of two" in said
        assert "derived: images of a pair of one person" in said
        assert "1 of 2 pairs of two persons have images that the other pairs, or their bytes, make one" in said
        assert "single image" not in said, "what is usual in such a set is no fault"


@pytest.mark.parametrize(("is_same", "missing"), [(True, "two persons"), (False, "one person")])
def test_a_verification_set_of_one_kind_of_pairs_is_said_to_measure_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_same: bool, missing: str
) -> None:
    write_bin(tmp_path / "tiny.bin", [tiny.encoded(identity, 0) for identity in range(4)], [is_same, is_same])
    assert cli.main(["inspect", str(tmp_path / "tiny.bin")]) == 0
    said = capsys.readouterr().out
    assert f"no pair is of {missing}: nothing can be measured without pairs of both kinds" in said


def test_columns_of_a_table_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [tiny.encoded(identity, 0) for identity in range(3)]
    pq.write_table(pa.table({"image": images, "person": [0, 1, 1], "label": [0, 0, 0]}), tmp_path / "t.parquet")
    assert cli.main(["inspect", str(tmp_path / "t.parquet"), "--label-column", "person"]) == 0
    assert "identities │ 2" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["inspect", str(tmp_path / "t.parquet"), "--label-column", "persons"]) == 3
    assert "label_column 'persons' is not there" in capsys.readouterr().err


def test_what_is_no_set_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(tmp_path / "none.rec")]) == 3
    assert "none.rec is missing" in capsys.readouterr().err


def test_identities_are_counted_in_bins_of_powers_of_two() -> None:
    counts = np.array([1, 1, 2, 3, 4, 5, 8, 9, 33])
    assert histogram(counts) == [("1", 2), ("2", 1), ("3-4", 2), ("5-8", 2), ("9-16", 1), ("17-32", 0), ("33-64", 1)]
    assert histogram(np.array([1])) == [("1", 1)]
    assert histogram(np.array([2])) == [("1", 0), ("2", 1)]
