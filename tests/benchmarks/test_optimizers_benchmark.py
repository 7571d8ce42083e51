"""The benchmark of optimizers measures each way that there is, against torch's fused one of the same rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import optimizers


def test_every_way_of_torch_is_measured_against_the_fused_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, kept = tmp_path / "page.md", tmp_path / "kept.json"
    page.write_text("<!-- optimizers -->\n<!-- /optimizers -->\n")
    assert optimizers.main(["--network", "mbf", "--steps", "2", "--json", str(kept), "--document", str(page)]) == 0
    result = json.loads(kept.read_text())
    assert list(result["steps"]) == [f"{rule} {way}" for rule in ("sgd", "adamw") for way in optimizers.WAYS]
    assert all(len(steps) == 2 and min(steps) > 0 for steps in result["steps"].values())
    printed = capsys.readouterr().out
    assert all(line in printed for line in page.read_text().splitlines()[1:-1])
    assert printed.count(" 1.00 x |") >= 2, "each fused one against itself"
    assert "apex" not in printed, "it needs a GPU"
