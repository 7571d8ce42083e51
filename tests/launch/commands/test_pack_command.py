"""``partial-fc pack convert`` as users meet it: what it makes, says, and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from data_pipeline.formats.by_path import source_at
from launch import cli


def test_a_set_is_converted_and_verified_by_its_checksums(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny.write_records(tmp_path / "data" / "train.rec", range(3))
    words = [str(path), "--to=tar", "--shuffle=1", "--images-per-shard=10", "--workers=1"]
    assert cli.main(["pack", "convert", *words, "--out", str(tmp_path / "out")]) == 0
    assert "24/24" in capsys.readouterr().err
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "checksums.npy",
        "identities.tsv",
        "property",
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.tar",
    ]
    shuffled = source_at(tmp_path / "out")
    assert sorted(shuffled.labels) == sorted(source_at(path).labels)
    look = ["verify", str(tmp_path / "out"), "--fast", "--out", str(tmp_path / "q.tsv")]
    assert cli.main(look) == 0
    assert "all of 24 images can be used, and have their checksums" in capsys.readouterr().out

    shard = bytearray((tmp_path / "out" / "shard-000001.tar").read_bytes())
    image = shuffled.read(12).tobytes()
    shard[shard.index(image) + len(image) // 2] ^= 1
    (tmp_path / "out" / "shard-000001.tar").write_bytes(shard)
    assert cli.main(look) == 3
    assert "checksum: its " in capsys.readouterr().out


def test_labels_that_are_ids_are_said_to_be_numbered_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(tiny.encoded(0, 0))
    (tmp_path / "list.txt").write_text("a.png 900000000\na.png 900000007\n")
    assert cli.main(["pack", "convert", str(tmp_path / "list.txt"), "--out", str(tmp_path / "out"), "--workers=1"]) == 0
    said = capsys.readouterr().out
    assert f"the largest is that of {tmp_path / 'list.txt'}, line 2" in said
    assert "Labels were numbered anew, 0 to 1: identities.tsv has what they were" in said


def test_what_cannot_be_converted_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny.write_records(tmp_path / "data" / "train.rec", range(2))
    assert cli.main(["pack", "convert", str(path), "--out", str(path.parent)]) == 3
    assert cli.main(["pack", "convert", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "data exists and is never overwritten" in lines[0]
    assert "none is missing" in lines[1]
