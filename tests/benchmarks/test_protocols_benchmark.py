"""The benchmark of the protocols measures each part once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import protocols
from launch.protocols.ijb_files import pair_chunks

SMALL = ["--pictures", "300", "--templates", "40", "--pairs", "2000", "--probes", "100", "--distractors", "50"]


def test_each_part_says_its_seconds_and_its_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert protocols.main(SMALL) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["300 pictures pooled into 40 templates", "1"]
    assert lines[2].startswith("100 probes among 50 distractors: ")
    assert all(line.endswith(" GiB") for line in lines)


def test_the_list_of_pairs_is_sorted_by_its_first_template(tmp_path: Path) -> None:
    protocols.write_pairs(tmp_path / "pairs.txt", 40, 1601)
    ((first, second, same),) = pair_chunks(tmp_path / "pairs.txt")
    assert (np.diff(first) >= 0).all()
    assert (first.size, int(same.sum()), int(max(first.max(), second.max()))) == (1601, 3, 39)
