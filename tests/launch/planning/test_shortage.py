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
from launch.planning.shortage import free_bytes, has_room_for_copies, memory_shortage
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


def test_a_copy_has_room_where_all_ranks_of_the_host_have_it_beside_their_steps(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = planner(config, 12, "cpu", H100, memory=1, reserve=0).rank_bytes(2, config.schedule.batch_size)
    to_come = sum(planned.values()) - planned["class rows"] - planned["backbone weights"]
    copy = 1 << 20
    needed = 2 * (copy + to_come) / shortage._KEPT_FREE
    for free, fits in ((needed + 2, True), (needed - 2, False), (1 << 40, True)):
        monkeypatch.setattr(shortage, "free_bytes", lambda device, free=free: int(free))
        assert has_room_for_copies(config, 12, CPU, 2, 2, copy) == fits
    gpu = torch.device("cuda")
    for free, fits in ((2.5 * copy, True), (1.9 * copy, False)):
        monkeypatch.setattr(shortage, "free_bytes", lambda device, free=free: int(free) if device == CPU else 0)
        assert has_room_for_copies(config, 12, gpu, 2, 2, copy) == fits, "a GPU's steps take none of the host's memory"


@pytest.mark.parametrize("told", [True, False])
def test_what_the_configuration_says_of_copies_holds(tmp_path: Path, told: bool) -> None:
    tree = tiny.tree(tmp_path, tmp_path / "run", checkpoint={"in_background": told})
    config = load_config(tiny.write_config(tmp_path / "config.yaml", tree))
    assert has_room_for_copies(config, 12, CPU, 2, 2, 1 << 60) == told


def test_a_copy_that_is_asked_for_counts_among_the_memory_of_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tiny.tree(tmp_path, tmp_path / "run", checkpoint={"in_background": True})
    asked = load_config(tiny.write_config(tmp_path / "config.yaml", tree))
    made = planner(asked, 500_000, "cpu", H100, memory=1, reserve=0)
    needed = sum(made.rank_bytes(2, asked.schedule.batch_size).values())
    monkeypatch.setattr(shortage, "_LARGEST_NETWORK_BYTES", 1 << 40)
    monkeypatch.setattr(shortage, "free_bytes", lambda device: needed + made.save_cost(2).rank_bytes - 1)
    assert memory_shortage(asked, 500_000, CPU, 2, 1) is not None
    monkeypatch.setattr(shortage, "free_bytes", lambda device: needed + made.save_cost(2).rank_bytes)
    assert memory_shortage(asked, 500_000, CPU, 2, 1) is None


def test_training_says_so_before_its_first_step_and_saves_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shortage, "free_bytes", lambda device: 1 << 10)
    data = tiny.write_data(tmp_path / "data")
    tree = tiny.tree(data, tmp_path / "run", schedule={"epochs": 0.1})
    assert train.main([str(tiny.write_config(tmp_path / "config.yaml", tree))]) == 0
    said = capsys.readouterr().out
    assert said.startswith("this run is planned to need ")
    assert "does not fit beside the training: checkpoints are written in parts, and training waits for them" in said
    assert " s, written in parts\n" in said


def test_a_container_has_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = free_bytes(CPU)
    assert 1 << 20 < machine < 1 << 62
    monkeypatch.setattr(shortage, "_CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU) > 1 << 20
    (tmp_path / "memory.max").write_text("51000\n")
    assert free_bytes(CPU) == 50000
    (tmp_path / "memory.stat").write_text("anon 300\nactive_file 200\ninactive_file 100\n")
    assert free_bytes(CPU) == 50300, "files that were read make room"
