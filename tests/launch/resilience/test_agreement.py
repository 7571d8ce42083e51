"""Ranks that do not mean the same run stop before anything is written, with what differs."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import shutil
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from simulation import on_ranks
from torch import Tensor

from launch import train
from launch.assembly.run_folder import RunFolder
from launch.config.loading import ConfigError
from launch.resilience import agreement
from launch.resilience.agreement import agree, shared_memory_shortage, slow_network
from partial_fc import World

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FACTS: dict[str, Any] = {
    "config": {
        "run_dir": "/runs/a",
        "seed": 0,
        "data": {"train": "/here", "evaluate": None},
        "report": {"port": 9410, "every_steps": 20},
    },
    "data": {"num_images": 10, "num_classes": 3, "fingerprint": "f00", "identities": "1d"},
}
Usage = namedtuple("Usage", "total used free")


def said_by_ranks(tmp_path: Path, of_rank_1: dict[str, Any], folder_of_rank_1: Path | None = None) -> list[str]:
    """What each of three ranks is told."""
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    folder.lock.touch()

    def rank(world: World) -> str:
        is_other = world.rank == 1
        facts = copy.deepcopy(of_rank_1 if is_other else FACTS)
        mine = RunFolder(folder_of_rank_1) if is_other and folder_of_rank_1 else folder
        try:
            agree(world, mine, facts, CPU)
        except ConfigError as error:
            return str(error)
        return ""

    return on_ranks(3, rank)


def test_ranks_that_mean_the_same_go_on(tmp_path: Path) -> None:
    assert said_by_ranks(tmp_path, FACTS) == ["", "", ""]


def test_each_node_may_have_its_own_copy_of_the_images_and_its_own_ports(tmp_path: Path) -> None:
    own = {"data": {"train": "/there", "evaluate": None}, "report": {"port": 0, "every_steps": 20}}
    assert said_by_ranks(tmp_path, {**FACTS, "config": {**FACTS["config"], **own}}) == ["", "", ""]


@pytest.mark.parametrize(
    ("part", "key", "value", "name", "cure"),
    [
        ("config", "seed", 1, "configuration", "same --set"),
        ("data", "fingerprint", "bad", "images", "the same files on every node"),
        ("data", "identities", "2e", "identities", "the same files on every node"),
    ],
)
def test_what_differs_is_said_on_all_ranks_with_what_each_has(
    tmp_path: Path, part: str, key: str, value: object, name: str, cure: str
) -> None:
    said = said_by_ranks(tmp_path, {**FACTS, part: {**FACTS[part], key: value}})
    assert all(f"rank 1 and rank 0 differ: {name}. " in each and cure in each for each in said)
    assert said[0].partition("Here")[2] != said[1].partition("Here")[2]
    assert "Here, rank 2: " in said[2]


def test_versions_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter(["2.13.0+cpu", "2.12.0", "2.13.0"])
    compared = agreement._compared
    monkeypatch.setattr(
        agreement, "_compared", lambda facts: compared(facts) | {"version of torch": next(told).partition("+")[0]}
    )
    assert all("differ: version of torch. Install the same one" in each for each in said_by_ranks(tmp_path, FACTS))


def test_a_run_folder_that_a_rank_does_not_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "PATIENCE_SECONDS", 0.1)
    said = said_by_ranks(tmp_path, FACTS, tmp_path / "elsewhere")
    assert all(
        "rank 1 and rank 0 differ: run folder. run_dir must lie on a file system that all" in each for each in said
    )


def test_clocks_apart_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0, 95 * 10**9, 10**9])
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    assert said_by_ranks(tmp_path, FACTS) == ["", "", ""]
    assert capsys.readouterr().out.count("the clocks of the ranks are 95 s apart") == 1


def test_little_shared_memory_is_said_where_gpus_meet_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(64 << 20, 0, 64 << 20))
    monkeypatch.setattr(agreement, "SHARED_MEMORY", Path("/"))
    assert "has 64 MiB free, and 8 ranks meet there" in str(shared_memory_shortage(8, GPU))
    assert shared_memory_shortage(1, GPU) is None
    assert shared_memory_shortage(8, CPU) is None
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(8 << 30, 0, 8 << 30))
    assert shared_memory_shortage(8, GPU) is None


def other_seeds(data: Path, folder: Path) -> None:
    """One of two processes, each told another seed."""
    rank = os.environ["RANK"]
    config = tiny.write_config(folder / f"{rank}.yaml", tiny.tree(data, folder / "run", seed=int(rank)))
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = train.main([str(config)])
    (folder / f"said-{rank}").write_text(f"{code} {said.getvalue()}")


class Clock:
    """What time is to `agreement`: it passes where a network or a device takes it."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1e-6
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(agreement, "time", clock)
    return clock


class Nodes(World):
    """Two nodes of one rank each, with a network that carries so much."""

    def __init__(self, megabytes_per_second: float, clock: Clock) -> None:
        self.size, self.seconds_of_byte, self.clock = 2, 1e-6 / megabytes_per_second, clock

    def all_gather(self, tensor: Tensor) -> Tensor:
        self.clock.now += tensor.nbytes * self.seconds_of_byte
        return torch.stack([tensor, tensor])


def test_a_slow_network_between_nodes_is_said(clock: Clock) -> None:
    said = slow_network(Nodes(40.0, clock), 1, CPU)
    assert said is not None
    assert said.startswith("the nodes exchange 40 MB/s: ")
    assert "GLOO_SOCKET_IFNAME=eth1" in said
    assert slow_network(Nodes(201.0, clock), 1, CPU) is None
    assert slow_network(Nodes(1.0, clock), 2, CPU) is None, "both ranks are on one node"


class Read:
    """What a device is still bringing: who reads it waits."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.seconds, self.clock = seconds, clock

    def __getitem__(self, place: object) -> Read:
        return self

    def item(self) -> int:
        self.clock.now += self.seconds
        return 0


class ManyNodes(World):
    """``size`` nodes of one rank on devices that work beside the host, and connect within half a second."""

    def __init__(self, size: int, clock: Clock) -> None:
        self.size, self.asked_bytes, self.clock = size, list[int](), clock

    def all_gather(self, tensor: Tensor) -> Read:  # type: ignore[override]
        self.asked_bytes.append(tensor.nbytes)
        return Read(0.5 if len(self.asked_bytes) == 1 else 0.0, self.clock)


@pytest.mark.parametrize(("size", "mebibytes"), [(2, 8), (8, 8), (16, 4), (64, 1), (1024, 1)])
def test_many_nodes_try_the_network_with_little_each(size: int, mebibytes: int, clock: Clock) -> None:
    world = ManyNodes(size, clock)
    assert slow_network(world, 1, CPU) is None
    assert world.asked_bytes == [16, mebibytes << 20]


def test_connecting_is_not_counted_as_a_slow_network(clock: Clock) -> None:
    assert slow_network(ManyNodes(2, clock), 1, CPU) is None
    assert clock.now > 0.4, "the first gather was waited for, before the clock of the second"


@pytest.mark.processes
def test_two_processes_told_otherwise_leave_the_run_folder_as_it_was(tmp_path: Path) -> None:
    tiny.processes(2, other_seeds, tiny.write_data(tmp_path / "data"), tmp_path)
    assert (tmp_path / "said-0").read_text().startswith("2 partial-fc: rank 1 and rank 0 differ: configuration. ")
    assert (tmp_path / "said-1").read_text().startswith("2 ")
    assert [path.name for path in (tmp_path / "run").rglob("*")] == []
