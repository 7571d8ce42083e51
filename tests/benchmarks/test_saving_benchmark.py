"""The benchmark of saves measures what it says, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import saving

SMALL = ["--classes", "3000", "--dim", "32", "--batch", "8", "--saves", "3", "--steps", "2"]


@pytest.mark.parametrize("words", [[], ["--in-parts"]])
def test_every_save_is_measured_beside_a_copy_and_a_file(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    page, kept = tmp_path / "page.md", tmp_path / "kept.json"
    page.write_text("<!-- saving -->\n<!-- /saving -->\n")
    to = ["--folder", str(tmp_path), "--json", str(kept), "--document", str(page)]
    assert saving.main([*SMALL, *words, *to]) == 0
    result = json.loads(kept.read_text())
    assert len(result["saves"]) == 3
    assert len(result["steps_alone"]) == 6
    for save in result["saves"]:
        assert save["bytes"] == pytest.approx(2 * 4 * 3000 * 32, rel=0.05)
        assert min(save[key] for key in ("pause", "copy", "writing", "file")) > 0
        assert (save["pause"] >= save["writing"]) or not words
    printed = capsys.readouterr().out
    assert all(line in printed for line in page.read_text().splitlines()[1:-1])
    assert ("| writing |" in printed) != bool(words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.json", "page.md"]
