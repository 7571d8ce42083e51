"""``partial-fc verify`` as users and scripts meet it: what it prints, what it writes, how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from data_pipeline.checking.quarantine import quarantined, quarantined_samples
from data_pipeline.formats.by_path import source_at
from launch import cli


def whole(folder: Path) -> Path:
    return tiny.write_records(folder / "train.rec", range(3))


def damaged(folder: Path) -> Path:
    return tiny.write_records(folder / "train.rec", range(3), damaged=[10])


@pytest.mark.parametrize("options", [[], ["--fast"], ["--workers", "1"]])
def test_a_whole_set_ends_well_and_has_an_empty_list(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = whole(tmp_path), tmp_path / "q.tsv"
    assert cli.main(["verify", str(path), "--out", str(out), *options]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"all of 24 images can be used\n{out}  nothing to leave out\n"
    assert "24/24" in printed.err
    assert quarantined_samples(out, source_at(path)).size == 0


@pytest.mark.parametrize("options", [[], ["--fast"]])
def test_a_damaged_set_ends_with_the_code_of_bad_data_and_a_list(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = damaged(tmp_path), tmp_path / "q.tsv"
    assert cli.main(["verify", str(path.parent), "--out", str(out), *options]) == 3
    printed = capsys.readouterr().out
    assert "1 of 24 images cannot be used" in printed
    assert "truncated" in printed
    (line,) = quarantined(out, source_at(path))
    assert (line.sample, line.name) == (10, f"{path} key 11")
    assert line.reason.startswith("truncated: ")


def test_parts_are_verified_as_the_one_set_that_training_makes_of_them(tmp_path: Path) -> None:
    parts, out = [whole(tmp_path / "[red]a"), damaged(tmp_path / "b")], tmp_path / "q.tsv"
    assert cli.main(["verify", *map(str, parts), "--fast", "--out", str(out)]) == 3
    assert quarantined_samples(out, source_at(parts)).tolist() == [34]
    with pytest.raises(ValueError, match="another set"):
        quarantined_samples(out, source_at(parts[1]))


def test_names_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = damaged(tmp_path / "[red]")
    assert cli.main(["verify", str(path), "--fast", "--out", str(tmp_path / "q.tsv")]) == 3
    assert f"({path} key 11)" in capsys.readouterr().out


def test_what_cannot_be_opened_or_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = whole(tmp_path)
    assert cli.main(["verify", str(tmp_path / "none.rec")]) == 3
    assert cli.main(["verify", str(path), "--out", str(path)]) == 3
    assert cli.main(["verify", str(path), "--out", str(tmp_path / "q.tsv"), "--workers", "0"]) == 3
    lines = capsys.readouterr().err.splitlines()
    said = ["none.rec is missing", "train.rec exists and is no quarantine list", "0 workers: expected at least 1"]
    assert len(lines) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True))
    assert not (tmp_path / "q.tsv").exists()
