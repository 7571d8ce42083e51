"""What several networks mistake together is counted by pairs of identities, and drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

from benchmarks import mistakes


def test_a_mistake_is_counted_for_the_pair_of_identities_in_either_direction() -> None:
    angles = torch.deg2rad(torch.tensor([0.0, 1.0, 90.0, 92.0, 91.5, 180.0, 183.0]))
    unit_ND = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels_N = torch.tensor([5, 5, 2, 7, 2, 3, 3])
    assert mistakes.mistakes(unit_ND, labels_N) == {(2, 7): 2}  # 92 lies nearest to 91.5, and that to 92


def test_a_row_is_not_its_own_nearest() -> None:
    unit_ND = torch.nn.functional.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)))
    nearest = mistakes.nearest_others(unit_ND, slice(10, 30))
    expected = (unit_ND @ unit_ND.T).fill_diagonal_(-2).argmax(1)[10:30]
    assert torch.equal(nearest, expected)


def test_networks_without_a_mistake_are_told_to_have_none() -> None:
    labels_N = torch.tensor([0, 0, 1, 1])
    found = mistakes.mistakes(torch.eye(2)[labels_N], labels_N)
    assert mistakes.spread(found) == "no mistakes"


@pytest.mark.processes
def test_two_runs_are_joined_and_their_mistakes_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.write_data(tmp_path)
    for seed in (0, 1):
        config = tiny.tree(data, tmp_path / f"run{seed}", seed=seed)
        assert tiny.partial_fc("train", tiny.write_config(tmp_path / "c.yaml", config)).returncode == 0
    runs = [str(tmp_path / f"run{seed}") for seed in (0, 1)]
    picture = tmp_path / "mistakes.png"
    assert mistakes.main([*runs, "--data", str(data / "heldout"), "--picture", str(picture)]) == 0
    printed = capsys.readouterr().out
    rank1 = [float(line.split("|")[2]) for line in printed.splitlines() if line.startswith(("| /", "| all"))]
    assert len(rank1) == 3
    assert all(0 < share < 1 for share in rank1)
    assert "mistakes in" in printed
    with Image.open(picture) as drawn:
        assert drawn.width > drawn.height / 24 > 0
