"""Where reports go, and how a finished checkpoint comes to the endpoint of rank 0."""

from __future__ import annotations

import json
import socket
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from simulation import on_ranks
from torch import nn

from launch import assembly
from launch.assembly.run_folder import RunFolder
from launch.assembly.targets import listed_targets
from launch.config.run import ReportConfig, TLSConfig
from partial_fc import AdaCos, ShardedClassifier, World
from partial_fc.checkpoint.layout import latest_checkpoint
from partial_fc.checkpoint.saving import Saver
from partial_fc.checkpoint.training_state import TrainingState
from partial_fc.checkpoint.writing import Saved
from partial_fc.reports.prometheus import PrometheusSink
from partial_fc.reports.step_report import Sink

SCRAPED = ReportConfig(prometheus=True, port=0)
GAUGE = "partial_fc_last_checkpoint_timestamp_seconds"


class Rank(World):
    """A rank that says where it is and never has to talk."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def saver_of(folder: Path, told: list[Saved]) -> Saver:
    network, head = nn.Linear(3, 4), ShardedClassifier(5, 4, AdaCos(5))
    state = TrainingState(network, head, torch.optim.SGD(network.parameters(), 0.1), World())
    return Saver(RunFolder(folder).checkpoints, state, {}, on_saved=told.append)


def opened(
    folder: Path, world: World, saver: Saver | None = None, section: ReportConfig = SCRAPED, resumed: Path | None = None
) -> AbstractContextManager[list[Sink]]:
    saver = saver or saver_of(folder, [])
    return assembly.open_sinks(
        section, RunFolder(folder), world, objective="adacos", num_classes=5, saver=saver, resumed=resumed
    )


def samples(sinks: list[Sink]) -> dict[str, float]:
    endpoint = sinks[-1]
    assert isinstance(endpoint, PrometheusSink)
    with urlopen(f"http://127.0.0.1:{endpoint.port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_the_first_rank_speaks_and_writes_and_every_rank_is_scraped(tmp_path: Path) -> None:
    for rank, names in ((0, ["TerminalSink", "JsonLinesSink", "PrometheusSink"]), (1, ["PrometheusSink"])):
        with opened(tmp_path / "run", Rank(rank, 2)) as sinks:
            assert [type(sink).__name__ for sink in sinks] == names
    with opened(tmp_path / "run", Rank(1, 2), section=ReportConfig(prometheus=False)) as sinks:
        assert sinks == []


def test_a_checkpoint_is_shown_when_it_is_whole_and_told_to_others_as_before(tmp_path: Path) -> None:
    told = list[Saved]()
    saver = saver_of(tmp_path / "run", told)
    with opened(tmp_path / "run", World(), saver) as sinks:
        assert GAUGE not in samples(sinks)
        began = time.time()
        for step in (1, 2):
            saver.save(step)
        saver.wait()
        shown = samples(sinks)
    assert [saved.step for saved in told] == [1, 2]
    assert began <= told[0].timestamp_seconds <= told[1].timestamp_seconds <= time.time()
    assert shown[GAUGE] == told[1].timestamp_seconds
    for name, seconds in (
        ("partial_fc_checkpoint_seconds", [saved.writing_seconds for saved in told]),
        ("partial_fc_checkpoint_pause_seconds", [saved.pause_seconds for saved in told]),
    ):
        assert shown[f"{name}_count"] == 2
        assert shown[f"{name}_sum"] == pytest.approx(sum(seconds))


def test_a_run_that_goes_on_shows_when_its_checkpoint_was_whole_on_the_first_rank_alone(tmp_path: Path) -> None:
    told = list[Saved]()
    saver = saver_of(tmp_path / "run", told)
    saver.save(1)
    saver.wait()
    resumed = latest_checkpoint(RunFolder(tmp_path / "run").checkpoints)
    with opened(tmp_path / "run", Rank(0, 2), resumed=resumed) as sinks:
        shown = samples(sinks)
    assert shown[GAUGE] == pytest.approx(told[0].timestamp_seconds, abs=1.0)
    assert shown["partial_fc_checkpoint_seconds_count"] == 0, "this process wrote none"
    with opened(tmp_path / "run", Rank(1, 2), resumed=resumed) as sinks:
        assert GAUGE not in samples(sinks)


def test_the_restarts_that_torchrun_counts_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (None, "3"):
        monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
        if count is not None:
            monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        with opened(tmp_path / "run", Rank(1, 2)) as sinks:
            assert samples(sinks)["partial_fc_restarts"] == int(count or 0)


@pytest.mark.parametrize("has_folder", [False, True])
def test_the_ranks_are_listed_for_prometheus_until_a_clean_end(tmp_path: Path, has_folder: bool) -> None:
    section = ReportConfig(port=0, address="0.0.0.0", targets=tmp_path / "all" if has_folder else None)
    file = tmp_path / "all" / "run.json" if has_folder else tmp_path / "run" / "targets.json"

    def rank(world: World) -> int:
        with opened(tmp_path / "run", world, section=section) as sinks:
            assert isinstance(sinks[-1], PrometheusSink)
            return sinks[-1].port

    def failing(world: World) -> tuple[int, list[dict[str, Any]]]:
        with suppress(KeyError), opened(tmp_path / "run", world, section=section) as sinks:
            port = sinks[-1].port  # type: ignore[attr-defined]
            world.barrier()
            listed = json.loads(file.read_text())
            raise KeyError
        return port, listed

    (first, listed), (second, _) = on_ranks(2, failing)
    host = socket.gethostname()
    assert listed == [
        {"targets": [f"{host}:{port}"], "labels": {"node": host, "rank": str(rank), "local_rank": "0"}}
        for rank, port in enumerate((first, second))
    ]
    assert file.exists(), "a run that failed is to be found down"
    on_ranks(2, rank)
    assert not file.exists()


def test_an_address_and_tls_are_said_in_the_list(tmp_path: Path) -> None:
    tls = TLSConfig(certificate=Path("own.pem"), key=Path("own.key"))
    section, device = ReportConfig(address="fd00::1", tls=tls), torch.device("cpu")
    with listed_targets(tmp_path / "t.json", section, 9410, World(), device):
        (target,) = json.loads((tmp_path / "t.json").read_text())
    assert (target["targets"], target["labels"]["__scheme__"]) == (["[fd00::1]:9410"], "https")
