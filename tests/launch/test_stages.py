"""A run in stages: each changes what the run does from then on, and a run that is stopped anywhere goes on bitwise."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import Tensor

from launch import assembly, train
from launch.assembly.moved_out import export_of
from launch.assembly.run import Run
from launch.assembly.stages import begin_stage, next_objective
from launch.config.loading import ConfigError, load_config
from launch.config.run import Config
from launch.errors import Stopped
from partial_fc import AdaCos, P2SGrad, World
from partial_fc.checkpoint.layout import CheckpointFolder, latest_checkpoint, whole_checkpoints
from partial_fc.divergence import TrainingDiverged
from partial_fc.reports.json_lines import JsonLinesSink
from partial_fc.reports.step_report import StepReport

STEPS, EVERY = 24, 5  # 96 images, 16 at a time, four epochs
STAGES: list[tiny.Tree] = [
    {"share": 0.5, "objective": {"name": "p2sgrad"}, "classifier": {"sample_rate": 0.5}},
    {
        "epochs": 1,
        "objective": {"name": "adacos"},
        "classifier": {"learning_rate": 0.002},
        "augmentation": {"mirror": 0.5, "crop": 0.3},
    },
    {"classifier": {"sample_rate": 1.0}, "objective": {"name": "adacos", "max_scale": 20}},
]
FIRST_STEPS = [0, 12, 18]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


def config_at(folder: Path, data: Path, stages: list[tiny.Tree] | None = None, evaluate: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = tiny.tree(
        data,
        folder / "run",
        data={"evaluate": evaluate, "augmentation": {"mirror": 0.5}},
        backbone={"dropout": 0.2},
        classifier={"momentum": 0.9, "learning_rate": 0.01},
        schedule={"epochs": 4, "stages": STAGES if stages is None else stages},
        save_every_steps=EVERY,
        checkpoint={"keep_last": 100},
    )
    return tiny.write_config(folder / "config.yaml", content)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed; what it printed is in ``printed`` beside it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        train.run(load_config(config_at(folder, data, evaluate=str(data / "heldout"))))
    (folder / "printed").write_text(printed.getvalue())
    return folder / "run"


def state_at_end(run: Path) -> dict[str, Tensor]:
    folder = latest_checkpoint(run / "checkpoints")
    assert CheckpointFolder(folder).problems() == []
    tensors = {f"backbone {key}": each for key, each in torch.load(folder / "backbone.pt").items()}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= {f"{file.name} {name}": value for name, value in load_file(file).items()}
    return tensors


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def cut_off(run: Path, out: Path, step: int) -> None:
    """Make ``out`` what ``run`` was just after the checkpoint of ``step``."""
    shutil.copytree(run, out, symlinks=True)
    for checkpoint in whole_checkpoints(out / "checkpoints"):
        if checkpoint.manifest().step > step:
            shutil.rmtree(checkpoint.path)
    (out / "checkpoints" / "latest").unlink()
    (out / "checkpoints" / "latest").symlink_to(f"step-{step:08}")


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_each_stage_is_told_saved_and_reported(finished: Path) -> None:
    printed, run = (finished.parent / "printed").read_text(), finished
    for line in (
        "p2sgrad, then adacos; 24 steps of 16",
        "stage 1 of 3 from step 1: objective p2sgrad, classifier.sample_rate 0.5, classifier.learning_rate 0.01",
        "stage 2 of 3 from step 13: objective adacos (was p2sgrad), classifier.learning_rate 0.002 (was 0.01), "
        "data.augmentation.crop 0.3 (was 0)",
        "stage 3 of 3 from step 19: objective.max_scale 20 (was 64), classifier.sample_rate 1 (was 0.5)",
    ):
        assert line in printed
    saved = [checkpoint.manifest().step for checkpoint in whole_checkpoints(run / "checkpoints")]
    assert saved == [5, 10, 12, 15, 18, 20, 24], "on the way, and at the end of each stage"
    records = metrics(run)
    assert [record["step"] for record in records] == list(range(2, STEPS + 1, 2))
    assert [record["stage"] for record in records] == 6 * [1] + 3 * [2] + 3 * [3]
    assert [record["scale"] is None for record in records] == 6 * [True] + 6 * [False]
    rates = [record["row_learning_rate"] / record["learning_rate"] for record in records[:-1]]
    assert rates == pytest.approx(6 * [0.01 / 0.05] + 5 * [0.002 / 0.05])
    page = (run / "report.html").read_text()
    assert "adacos from step 13, all classes from step 19" in page
    assert page.count(">all classes</text>") == 6, "beside the line of every curve"


@pytest.mark.parametrize("step", [5, 12, 15, 18, 20])
def test_a_run_that_stops_anywhere_goes_on_bitwise(data: Path, tmp_path: Path, finished: Path, step: int) -> None:
    config = config_at(tmp_path, data)
    cut_off(finished, tmp_path / "run", step)
    train.run(load_config(config))
    assert_same(state_at_end(tmp_path / "run"), state_at_end(finished))
    assert metrics(tmp_path / "run")[-1]["loss"] == metrics(finished)[-1]["loss"]


def run_config(config: Path) -> None:
    train.run(load_config(config))


@pytest.mark.processes
def test_two_ranks_go_on_bitwise_from_the_first_stage_into_the_others(data: Path, tmp_path: Path) -> None:
    whole, again = (config_at(tmp_path / name, data) for name in ("whole", "again"))
    tiny.processes(2, run_config, whole)
    cut_off(whole.parent / "run", again.parent / "run", 10)
    tiny.processes(2, run_config, again)
    assert_same(state_at_end(again.parent / "run"), state_at_end(whole.parent / "run"))


def test_a_run_told_to_end_at_the_end_of_a_stage_begins_no_other(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    thirds: list[tiny.Tree] = [{"epochs": 4 / 3}, {"epochs": 4 / 3, "objective": {"name": "p2sgrad"}}, {}]
    write = JsonLinesSink.write

    def told_at_the_first_report(sink: JsonLinesSink, report: StepReport) -> None:
        monkeypatch.setattr(JsonLinesSink, "write", write)
        os.kill(os.getpid(), signal.SIGTERM)
        write(sink, report)

    monkeypatch.setattr(JsonLinesSink, "write", told_at_the_first_report)
    with pytest.raises(Stopped, match=r"stopped after step (8|16), which is saved"):
        train.run(load_config(config_at(tmp_path, data, thirds)))
    last = whole_checkpoints(tmp_path / "run" / "checkpoints")[-1].manifest().step
    assert last % 8 == 0, "the ranks agree every eight steps"
    printed = capsys.readouterr().out
    assert f"stage {last // 8} of 3" in printed
    assert f"stage {last // 8 + 1} of 3" not in printed


def test_one_stage_that_changes_nothing_trains_as_no_stages_do(data: Path, tmp_path: Path) -> None:
    for name, stages in (("none", None), ("one", [{}]), ("two", [{"share": 0.5}, {}])):
        content = tiny.tree(data, tmp_path / name, data={"evaluate": None}, schedule={"epochs": 1})
        content["schedule"]["stages"] = stages
        train.run(Config.model_validate(content))
    shared, others = state_at_end(tmp_path / "none"), [state_at_end(tmp_path / name) for name in ("one", "two")]
    for other in others:
        assert_same(other, shared)


def test_other_stages_are_refused_with_what_differs(data: Path, tmp_path: Path, finished: Path) -> None:
    cut_off(finished, tmp_path / "run", 12)
    others = [STAGES[0], {**STAGES[1], "classifier": {"learning_rate": 0.003}}, STAGES[2]]
    said = r"begun otherwise: schedule\.stages, stage 2: classifier\.learning_rate was 0\.002 and is 0\.003\. Give"
    with pytest.raises(ConfigError, match=said):
        train.run(load_config(config_at(tmp_path, data, others)))


def test_a_loss_of_a_later_stage_that_cannot_be_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path
) -> None:
    beyond = {"objective": {"name": "p2sgrad", "negatives": "beyond_chance"}}
    config = load_config(config_at(tmp_path, data, [{"share": 0.5}, beyond]), ["backbone.embedding_dim=4"])
    with pytest.raises(
        ConfigError, match=r"objective: of 12 classes in 4 dimensions .* expected more than 4 dimensions"
    ):
        train.run(config)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_stage_without_a_step_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stage 1 of 2 is too short to have a step, of the 24 of the run"):
        train.run(load_config(config_at(tmp_path, data, [{"share": 0.01}, {}])))
    assert not (tmp_path / "run").exists()


def parts_of(config: Config) -> Run:
    source = tiny.training_data(config)
    return assembly.run(config, source, tiny.backbone(config), World(), torch.device("cpu"), facts={})


def test_what_two_objectives_of_one_class_keep_goes_on(data: Path, tmp_path: Path) -> None:
    parts = parts_of(load_config(config_at(tmp_path, data)))
    first, second, third = parts.stages
    assert isinstance(parts.head.objective, P2SGrad)
    begin_stage(parts, first, second)
    adacos = parts.head.objective
    assert isinstance(adacos, AdaCos)
    assert float(adacos.scale) == float(AdaCos(len(tiny.TRAINED)).scale), "the fixed scale: P2SGrad has none"
    adacos.scale.fill_(12.5)
    adacos.steps.fill_(6)
    begin_stage(parts, second, third)
    assert isinstance(parts.head.objective, AdaCos)
    assert (parts.head.objective.max_scale, parts.head.sample_rate) == (20, 1.0)
    assert (float(parts.head.objective.scale), int(parts.head.objective.steps)) == (12.5, 6)
    smaller = next_objective(second.config.objective.model_copy(update={"max_scale": 10.0}), parts.head)
    assert isinstance(smaller, AdaCos)
    assert float(smaller.scale) == 10.0, "no larger than the new largest one"
    fixed = next_objective(second.config.objective.model_copy(update={"dynamic": False}), parts.head)
    assert isinstance(fixed, AdaCos)
    assert float(fixed.scale) == float(AdaCos(len(tiny.TRAINED), dynamic=False).scale)
    parts.head.objective = fixed
    fixed.steps.fill_(9)
    assert int(next_objective(second.config.objective, parts.head).get_buffer("steps")) == 0, "it begins as a run does"


def test_a_stage_changes_the_limit_of_the_rows_gradient(data: Path, tmp_path: Path) -> None:
    stages: list[tiny.Tree] = [
        {"share": 0.5},
        {"share": 0.25, "classifier": {"clip": 0.2}},
        {"classifier": {"clip": 0}},
    ]
    parts = parts_of(load_config(config_at(tmp_path, data, stages), ["classifier.clip=0.5"]))
    assert parts.head.row_optimizer is not None
    found = [parts.head.row_optimizer.clip]
    for before, after in pairwise(parts.stages):
        begin_stage(parts, before, after)
        found.append(parts.head.row_optimizer.clip)
    assert found == [0.5, 0.2, None]


def test_a_stage_whose_last_step_was_skipped_leaves_no_checkpoint_of_it(data: Path, tmp_path: Path) -> None:
    stages: list[tiny.Tree] = [{"epochs": 1}, {"optimizer": {"learning_rate": 0.05}}]
    changes = ["optimizer.learning_rate=1e30", "optimizer.clip_norm=null", "divergence.most_skipped=1000"]
    config = load_config(config_at(tmp_path, data, stages), changes)
    with contextlib.suppress(TrainingDiverged, ValueError):  # what is left to save or to measure is no good either
        train.run(config)
    saved = [folder.manifest().step for folder in whole_checkpoints(tmp_path / "run" / "checkpoints")]
    assert 6 not in saved


def test_losses_that_may_be_others_are_no_spikes_and_skipped_steps_still_count(data: Path, tmp_path: Path) -> None:
    stages: list[tiny.Tree] = [
        {"share": 0.4},
        {"share": 0.2, "optimizer": {"learning_rate": 0.01}},
        {"classifier": {"sample_rate": 0.5}},
    ]
    parts = parts_of(load_config(config_at(tmp_path, data, stages)))
    course = parts.state.course
    for step in range(200):
        course.take(5.0 + 0.01 * (step % 2))
    course.skipped_steps = 3
    course.latest_skipped.append(7)
    limit = course.limit(20.0)
    begin_stage(parts, parts.stages[0], parts.stages[1])
    assert course.limit(20.0) == limit < 10, "another learning rate changes no loss at once"
    begin_stage(parts, parts.stages[1], parts.stages[2])
    assert course.limit(20.0) == float("inf")
    assert (course.skipped_steps, list(course.latest_skipped)) == (3, [7])


def test_batches_after_a_change_are_those_of_a_run_that_begins_there(data: Path, tmp_path: Path) -> None:
    parts = parts_of(load_config(config_at(tmp_path, data)))
    for _ in range(12):
        next(parts.batches)
    begin_stage(parts, *parts.stages[:2])
    config = parts.stages[1].config
    fresh = assembly.loader(
        *(config.data, tiny.training_data(config)),
        batch_size=16,
        seed=config.seed,
        world=World(),
        device=torch.device("cpu"),
        start_step=12,
    )
    for _ in range(3):
        changed, expected = next(parts.batches), next(fresh)
        assert torch.equal(changed.images, expected.images)
        assert torch.equal(changed.labels, expected.labels)
    assert parts.batches.images == 15 * 16, "and what was counted goes on"


def test_an_export_has_the_rates_of_the_checkpoint_s_stage(finished: Path) -> None:
    of_step = {checkpoint.manifest().step: checkpoint for checkpoint in whole_checkpoints(finished / "checkpoints")}
    _, remarks = export_of(of_step[12])
    assert any("objective p2sgrad" in remark for remark in remarks)
    _, remarks = export_of(of_step[15])
    assert any("objective adacos" in remark for remark in remarks)
