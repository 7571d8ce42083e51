"""A run that will not find its memory is told so before the first step, with what to change."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from launch import train
from launch.config.loading import load_config
from launch.config.run import Config
from launch.planning import shortage
from launch.planning.forecast import planner
from launch.planning.shortage import free_bytes, memory_shortage
from partial_fc.planning.rates import H100

CPU = torch.device("cpu")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(tiny.write_config(tmp_path / "config.yaml", tiny.tree(tmp_path, tmp_path / "run")))


def test_a_run_that_fits_says_nothing(config: Config) -> None:
    assert memory_shortage(config, 12, CPU, 2, 2) is None


def test_a_run_that_does_not_fit_says_what_it_needs_and_what_to_change(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortage, "free_bytes", lambda device: 1 << 10)
    said = memory_shortage(config, 12, CPU, 2, 2)
    assert said is not None
    assert "1.00 KiB are free" in said
    assert "most of it for activations" in said
    for option in ("schedule.batch_size", "backbone.checkpoint_activations", "partial-fc plan"):
        assert option in said
    alone = memory_shortage(config, 12, CPU, 2, 1)
    assert alone is not None
    assert alone != said, "two ranks of one machine share its memory"


@pytest.mark.parametrize("name", ["r18", "vit_h"])
def test_no_network_needs_more_than_the_ceiling_below_which_nothing_is_planned(tmp_path: Path, name: str) -> None:
    tree = tiny.tree(tmp_path, tmp_path / "run", backbone={"name": name, "width": 64}, data={"image_size": 112})
    config = load_config(tiny.write_config(tmp_path / "config.yaml", tree))
    planned = planner(config, 100_000, "cpu", H100, memory=1, reserve=0).rank_bytes(1, 16)
    assert 1.3 * sum(planned.values()) < shortage._LARGEST_NETWORK_BYTES + shortage._ceiling(config, 100_000, 1)


def test_training_says_so_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shortage, "free_bytes", lambda device: 1 << 10)
    data = tiny.write_data(tmp_path / "data")
    tree = tiny.tree(data, tmp_path / "run", schedule={"epochs": 0.1})
    assert train.main([str(tiny.write_config(tmp_path / "config.yaml", tree))]) == 0
    assert capsys.readouterr().out.startswith("this run is planned to need ")


def test_a_container_has_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = free_bytes(CPU)
    assert 1 << 20 < machine < 1 << 62
    monkeypatch.setattr(shortage, "_CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU) > 1 << 20
    (tmp_path / "memory.max").write_text("51000\n")
    assert free_bytes(CPU) == 50000
