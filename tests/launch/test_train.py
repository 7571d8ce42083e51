"""A training run as a whole: what it learns, what it writes, and that ranks make one network together."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from data_pipeline.checking.quarantine import QuarantineWriter
from data_pipeline.formats.recordio.source import RecordSource
from launch import assembly, train
from launch.config.loading import load_config
from launch.config.run import Config
from partial_fc import World
from partial_fc.checkpoint.layout import latest_checkpoint, whole_checkpoints
from partial_fc.checkpoint.loading import load_backbone
from partial_fc.loop import train as train_steps
from partial_fc.reports.step_report import StepReport
from partial_fc.reports.terminal import TerminalSink
from partial_fc.reports.time_spent import started_seconds
from partial_fc.world import process_group

TRAINED, STEPS, EVERY, SAVE_EVERY, BATCH = range(40), 100, 15, 40, 32


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    config: Path
    run_dir: Path
    exit_code: int
    printed: str

    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny.write_records(folder / "train" / "train.rec", TRAINED)
    tiny.write_records(folder / "heldout" / "train.rec", tiny.HELD_OUT)
    return folder


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Ten epochs of 40 people in one process: a few seconds."""
    folder = tmp_path_factory.mktemp("run")
    content = tiny.tree(
        data,
        folder / "run",
        backbone={"embedding_dim": 32},
        classifier={"learning_rate": 0.02},
        schedule={"epochs": 10, "batch_size": BATCH},
        report={"every_steps": EVERY},
        save_every_steps=SAVE_EVERY,
    )
    config = tiny.write_config(folder / "config.yaml", content)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exit_code = train.main([str(config), "--set", "seed=1"])
    return Finished(config, folder / "run", exit_code, printed.getvalue())


def test_a_hundred_steps_teach_faces_that_were_never_seen(finished: Finished) -> None:
    assert finished.exit_code == 0
    losses = [record["loss"] for record in finished.metrics()]
    assert losses[0] > 3.0, "40 classes at random: ln 40 = 3.7"
    assert losses[-1] < 0.5 * losses[0]
    evaluation = json.loads((finished.run_dir / "evaluation.json").read_text())
    chance = (tiny.IMAGES_PER_IDENTITY - 1) / (len(tiny.HELD_OUT) * tiny.IMAGES_PER_IDENTITY - 1)
    assert evaluation["rank1"] > 2.5 * chance
    assert evaluation["eer"] < 0.4


def test_every_interval_is_a_line_of_metrics_with_sensible_figures(finished: Finished) -> None:
    records = finished.metrics()
    ends = [*range(EVERY, STEPS, EVERY), STEPS]
    assert [record["step"] for record in records] == ends
    assert [record["images"] for record in records] == [BATCH * end for end in ends]
    assert [record["epoch"] for record in records] == pytest.approx([BATCH * end / 320 for end in ends])
    for record in records:
        assert record["total_steps"] == STEPS
        assert 0.0 <= record["data_wait_seconds"] < record["step_seconds"]
        assert record["images_per_second"] == pytest.approx(BATCH / record["step_seconds"])
        assert 0.0 < record["median_target_angle_radians"] < 0.6 * math.pi
        assert 1.0 < record["scale"] <= 64.0
        assert 0.0 <= record["scale_capped"] <= 1.0
        assert record["learning_rate"] / 0.05 == pytest.approx(record["row_learning_rate"] / 0.02)
    stamps = [record["timestamp_seconds"] for record in records]
    assert stamps == sorted(stamps)
    assert records[-1]["seconds_left"] == 0.0
    assert records[-1]["learning_rate"] == 0.0 < records[0]["learning_rate"]
    assert records[-1]["median_target_angle_radians"] < records[0]["median_target_angle_radians"]


def test_the_resolved_config_lies_in_the_runs_folder_and_in_its_checkpoints(finished: Finished) -> None:
    resolved = load_config(finished.run_dir / "config.yaml")
    assert resolved == load_config(finished.config, ["seed=1"])
    assert resolved.seed == 1
    manifest = json.loads((latest_checkpoint(finished.run_dir / "checkpoints") / "manifest.json").read_text())
    assert (manifest["step"], manifest["num_classes"], manifest["facts"]["data"]["num_images"]) == (STEPS, 40, 320)
    assert Config.model_validate(manifest["facts"]["config"]) == resolved


def test_checkpoints_are_saved_on_the_way_and_at_the_end(finished: Finished) -> None:
    folders = [folder.path.name for folder in whole_checkpoints(finished.run_dir / "checkpoints")]
    assert folders == ["step-00000040", "step-00000080", "step-00000100"]
    weights = []
    for folder in folders:
        network = tiny.backbone(load_config(finished.run_dir / "config.yaml"))
        load_backbone(finished.run_dir / "checkpoints" / folder, network)
        weights.append(flat(network))
    assert not torch.equal(weights[0], weights[1])


def test_a_run_ends_with_its_figures_and_where_the_rest_lies(finished: Finished) -> None:
    evaluation = json.loads((finished.run_dir / "evaluation.json").read_text())
    assert evaluation.keys() >= {"rank1", "eer", "tar_at_far", "best_accuracy", "counts", "roc", "histograms"}
    counts = evaluation["counts"]
    assert (counts["images"], counts["identities"]) == (80, 10)
    assert counts["genuine_pairs"] + counts["impostor_pairs"] == 80 * 79 // 2
    table = finished.printed[finished.printed.index(f"step {STEPS}/{STEPS}") :]
    for name, figure in (("rank-1", "rank1"), ("equal error rate", "eer"), ("best accuracy", "best_accuracy")):
        assert name in table
        assert f"{evaluation[figure]:.4f}" in table
    for file in ("report.html", "evaluation.json", "metrics.jsonl", "config.yaml", "checkpoints"):
        assert (finished.run_dir / file).exists()
        assert str(finished.run_dir / file) in table


def test_the_report_shows_curves_and_pairs_and_needs_no_other_file(finished: Finished) -> None:
    page = (finished.run_dir / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert page.count("<svg") > 5
    assert "seed: 1" in page
    assert "<script" not in page


def test_without_held_out_identities_a_run_ends_with_its_checkpoint(data: Path, tmp_path: Path) -> None:
    config = tiny.write_config(tmp_path / "config.yaml", tiny.tree(data, tmp_path / "run", schedule={"epochs": 0.1}))
    assert train.main([str(config), "--set", "data.evaluate=null"]) == 0
    left = ["checkpoints", "config.yaml", "metrics.jsonl", "time_spent.json"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == left


def test_a_run_can_start_from_the_weights_of_the_run_it_sets_aside(data: Path, tmp_path: Path) -> None:
    config = tiny.write_config(tmp_path / "config.yaml", tiny.tree(data, tmp_path / "run", data={"evaluate": None}))
    train.run(load_config(config, ["schedule.epochs=0.1"]))
    first = latest_checkpoint(tmp_path / "run" / "checkpoints")
    for weights in (first, tmp_path / "run"):
        train.run(load_config(config, ["schedule.epochs=0.1", f"backbone.weights={weights}", "resume=never"]))
    for kept in ("run", "run-1", "run-2"):
        assert latest_checkpoint(tmp_path / kept / "checkpoints").name == first.name


def test_the_same_seed_gives_the_same_network_and_another_seed_another(data: Path, tmp_path: Path) -> None:
    content = tiny.tree(data, tmp_path / "run", data={"evaluate": None, "augmentation": {"mirror": 0.5}})
    config = tiny.write_config(tmp_path / "config.yaml", content)
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        overrides = [f"run_dir={tmp_path / name}", f"seed={seed}", "schedule.epochs=0.2"]
        train.run(load_config(config, overrides))
        folder = latest_checkpoint(tmp_path / name / "checkpoints")
        states.append(torch.load(folder / "backbone.pt", weights_only=True))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["fc.weight"], states[2]["fc.weight"])


def test_a_run_without_held_out_identities_says_where_its_results_lie(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = tiny.tree(data, tmp_path / "run", data={"evaluate": None}, schedule={"epochs": 0.1})
    assert train.main([str(tiny.write_config(tmp_path / "config.yaml", content))]) == 0
    *places, time_told = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[-4:]]
    assert places == [str(tmp_path / "run" / name) for name in ("metrics.jsonl", "config.yaml", "checkpoints")]
    assert re.match(r"goodput \d+\.\d % of .*; the rest: start ", time_told)


def test_the_time_of_a_run_adds_up_through_a_restart(data: Path, tmp_path: Path) -> None:
    """The first ends two steps after a save; the second finds the account in the checkpoint."""
    content = tiny.tree(data, tmp_path / "run", schedule={"epochs": 2}, save_every_steps=3)
    config = load_config(tiny.write_config(tmp_path / "config.yaml", content), [])

    def killed(sink: TerminalSink, report: StepReport) -> None:
        if report.step == 8:
            raise KeyboardInterrupt

    began = started_seconds()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TerminalSink, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            train.run(config)
    restarted = time.time()
    with pytest.MonkeyPatch.context() as patch:  # a process of its own would begin now
        patch.setattr(sys.modules["launch.assembly.run"], "started_seconds", lambda: restarted)
        train.run(config)
    kept = json.loads((tmp_path / "run" / "time_spent.json").read_text())
    seconds = kept["seconds"]
    assert sum(seconds.values()) == pytest.approx(kept["until_seconds"] - began, abs=0.01)
    assert kept["goodput"] == pytest.approx(seconds["training"] / sum(seconds.values()))
    assert all(seconds[cause] > 0 for cause in ("training", "data", "start", "save", "restart", "evaluation"))


@dataclass
class Losses:
    """A sink that keeps what the ranks must agree on."""

    losses: list[float] = field(default_factory=list)

    def write(self, report: StepReport) -> None:
        self.losses.append(report.loss)

    def close(self) -> None:
        pass


def flat(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def steps_done(config: Config, world: World, *, fixed_statistics: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Six steps of the trainer's own parts: the backbone's weights, this rank's class rows, the losses.

    With ``fixed_statistics`` BatchNorm uses its running statistics and keeps them: an image's embedding is then its
    own alone, as it must be where one rank and several are compared; statistics of a batch are each rank's own.
    """
    torch.manual_seed(config.seed)
    source, sink = tiny.training_data(config), Losses()
    backbone = tiny.backbone(config).train(not fixed_statistics)
    parts = assembly.run(config, source, backbone, world, torch.device("cpu"), facts={})
    assert parts.total_steps == 6
    train_steps(
        range(6),
        batches=parts.batches,
        counts=parts.counts,
        backbone=parts.model,
        head=parts.head,
        optimizer=parts.optimizer,
        set_rates=parts.set_rates,
        autocast=parts.autocast,
        clip_norm=config.optimizer.clip_norm,
        meter=parts.meter,
        sinks=[sink],
        report_every=1,
        save=lambda step: None,
        save_every=None,
    )
    return flat(backbone), parts.head.weight.detach(), torch.tensor(sink.losses, dtype=torch.float64)


def compared_ranks(path: Path) -> None:
    """What every rank of the test below does."""
    config = load_config(path)
    with process_group(timeout_seconds=60.0) as world:
        weights, _, losses = steps_done(config, world, fixed_statistics=False)
        for of_all_ranks in (world.all_gather(weights), world.all_gather(losses)):
            assert all(torch.equal(of_rank, of_all_ranks[0]) for of_rank in of_all_ranks), "the ranks' replicas differ"
        weights, rows_cD, losses = steps_done(config, world, fixed_statistics=True)
        rows_CD = world.gather_rows(rows_cD)
        expected_weights, expected_rows_CD, expected_losses = steps_done(config, World(), fixed_statistics=True)
        torch.testing.assert_close(losses, expected_losses, rtol=1e-4, atol=0.0)
        torch.testing.assert_close(rows_CD, expected_rows_CD, rtol=0.0, atol=1e-4)
        torch.testing.assert_close(weights, expected_weights, rtol=0.0, atol=1e-4)
        first = steps_done(config, World(), fixed_statistics=False)[0]
        assert float((first - expected_weights).abs().max()) > 1e-2, "the bound above tells trained networks apart"


@pytest.mark.processes
def test_two_ranks_hold_one_network_and_train_as_one_rank_does(data: Path, tmp_path: Path) -> None:
    """Without clipping, which would hide a gradient that is too long or too short by the number of ranks."""
    content = tiny.tree(
        data, tmp_path / "run", schedule={"batch_size": 15, "epochs": 6 * 15 / 320}, optimizer={"clip_norm": None}
    )
    tiny.processes(2, compared_ranks, tiny.write_config(tmp_path / "config.yaml", content))


DAMAGED = range(3, 93, 6)  # 15 of 96 images


@dataclass(frozen=True)
class DamagedRun:
    """What two ranks left behind that trained on a damaged set."""

    run_dir: Path
    said: list[str]
    """Each rank's exit code and its standard error."""

    def bad_images(self) -> list[int]:
        return [json.loads(line)["bad_images"] for line in (self.run_dir / "metrics.jsonl").read_text().splitlines()]

    def backbone(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = torch.load(
            latest_checkpoint(self.run_dir / "checkpoints") / "backbone.pt", weights_only=True
        )
        return state


def rank_amid_damage(config: str, folder: str, words: list[str]) -> None:
    """One rank's main, and on file what it said; nobody waits for torchrun, which would end it.

    ``{rank}`` in a word is the rank. A rank whose data are called ``vanishing`` loses them after its first steps.
    """
    rank = int(os.environ["RANK"])
    words = [word.format(rank=rank) for word in words]
    if any("vanishing" in word for word in words):
        Thread(target=truncate_after_the_first_report, args=(Path(folder),), daemon=True).start()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as errors:
        patch.setattr("launch.errors._MOMENT_SECONDS", 0.0)
        logging.basicConfig(stream=errors, format="%(message)s", force=True)
        try:
            exit_code = train.main([config, *(word for each in words for word in ("--set", each))])
        except RuntimeError as error:
            exit_code = 1
            print(error, file=errors)
    Path(folder, f"rank-{rank}").write_text(f"{exit_code} {errors.getvalue()}")


def truncate_after_the_first_report(folder: Path) -> None:
    while not (folder / "run" / "metrics.jsonl").exists() or not (folder / "run" / "metrics.jsonl").read_text():
        time.sleep(0.01)
    os.truncate(folder / "vanishing-1" / "train.rec", 0)


def trained_amid_damage(folder: Path, train_set: Path, *words: str) -> DamagedRun:
    tree = tiny.tree(folder, folder / "run", data={"train": str(train_set), "evaluate": None})
    tiny.processes(2, rank_amid_damage, str(tiny.write_config(folder / "config.yaml", tree)), str(folder), list(words))
    return DamagedRun(folder / "run", [(folder / f"rank-{rank}").read_text() for rank in range(2)])


@pytest.mark.processes
def test_two_ranks_train_around_damage_as_if_it_had_been_quarantined(tmp_path: Path) -> None:
    records = tiny.write_records(tmp_path / "train" / "train.rec", tiny.TRAINED, damaged=DAMAGED)
    with QuarantineWriter(tmp_path / "q.tsv", RecordSource(records)) as quarantine:
        for sample in DAMAGED:
            quarantine.append(sample, "known")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    met = trained_amid_damage(tmp_path / "a", records, "data.most_bad_images=0.5")
    known = trained_amid_damage(tmp_path / "b", records, f"data.quarantine={tmp_path / 'q.tsv'}")
    states = met.backbone(), known.backbone()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert met.bad_images()[-1] == len(DAMAGED) > met.bad_images()[0]
    assert set(known.bad_images()) == {0}
    logged = "".join(met.said)
    for sample in DAMAGED:  # by the rank that met it; the other may meet it as another's substitute
        assert 1 <= logged.count(f"train.rec key {sample + 1}) is replaced by another: truncated: ") <= 2
    assert known.said == ["0 ", "0 "]


@pytest.mark.processes
def test_two_ranks_stop_together_when_too_much_is_damaged(tmp_path: Path) -> None:
    records = tiny.write_records(tmp_path / "train" / "train.rec", tiny.TRAINED, damaged=DAMAGED)
    stopped = trained_amid_damage(tmp_path, records, "schedule.epochs=100", "data.most_bad_images=0.1")
    ends = [said.splitlines()[-1] for said in stopped.said]
    assert ends[0] == ends[1]
    assert [said[:2] for said in stopped.said] == ["3 ", "3 "]
    assert re.search(
        r"partial-fc: 1[1-5] of \d+ images could not be used \(.* data.most_bad_images allows 10 %", ends[0]
    )
    assert not (stopped.run_dir / "checkpoints").exists()


@pytest.mark.processes
def test_a_rank_that_loses_its_data_ends_the_other_too(tmp_path: Path) -> None:
    for rank in range(2):
        tiny.write_records(tmp_path / f"vanishing-{rank}" / "train.rec", tiny.TRAINED)
    lost = trained_amid_damage(tmp_path, Path("."), f"data.train={tmp_path}/vanishing-{{rank}}", "schedule.epochs=1000")
    assert lost.said[1].startswith("3 ")
    assert "nor can any of the 64 images drawn to take its place" in lost.said[1]
    assert lost.said[0].startswith("1 ")
