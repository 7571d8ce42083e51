"""The benchmark of opening measures every form, and opens what it says that it opens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import opening
from benchmarks.opening import FORMS, IMAGE
from data_pipeline.formats.by_path import source_at


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_made_whole(tmp_path: Path, form: str) -> None:
    source = source_at(FORMS[form](tmp_path, 250))
    assert (len(source), source.num_classes) == (250, 3)
    assert source.read(0).tobytes() == IMAGE
    assert sorted(source.labels.tolist()) == [0] * 100 + [1] * 100 + [2] * 50


@pytest.mark.processes
def test_figures_are_printed_kept_and_written_into_the_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text("<!-- opening -->\n<!-- /opening -->\n")
    words = ["--images", "300", "--turns", "1", "--only", "tar shards", "--folder", str(tmp_path)]
    to = ["--json", str(tmp_path / "o.json"), "--document", str(tmp_path / "page.md")]
    assert opening.main([*words, *to]) == 0
    kept = json.loads((tmp_path / "o.json").read_text())
    assert [len(each) for each in kept["forms"].values()] == [2]
    assert all(each["seconds"] > 0 for forms in kept["forms"].values() for each in forms)
    printed, page = capsys.readouterr().out, (tmp_path / "page.md").read_text()
    for line in page.splitlines()[1:-1]:
        assert line in printed
    assert "| tar shards | 0.0" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.json", "page.md"], "the sets are removed"


@pytest.mark.processes
def test_a_set_of_another_length_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 5 images: expected 6"):
        opening.openings(FORMS["list, numbers"](tmp_path, 5), times=1, images=6)


@pytest.mark.processes
def test_a_set_that_is_there_is_opened_and_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = FORMS[".rec + .idx"](tmp_path, 120)
    assert opening.main(["--set", str(path), "--turns", "1", "--json", str(tmp_path / "o.json")]) == 0
    first, later = json.loads((tmp_path / "o.json").read_text())["forms"]["train.rec"]
    assert first["images"] == later["images"] == 120
    assert "| train.rec | 0.0" in capsys.readouterr().out
    assert path.exists()
