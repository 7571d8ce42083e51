"""The command ``partial-fc`` as users and scripts meet it: help, exit codes, real ranks, endpoints, signals."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families

from launch import cli, evaluate, train
from launch.config.loading import load_config
from partial_fc.checkpoint.layout import whole_checkpoints

PATIENCE_SECONDS = 90.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(data: Path, tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path / "config.yaml", tiny.tree(data, tmp_path / "run"))


def waited_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


# What it says of itself


@pytest.mark.parametrize("words", [[], ["train"], ["evaluate"], ["pack"]])
def test_every_command_explains_itself(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--help"])
    assert ended.value.code == 0
    assert f"usage: partial-fc {' '.join(words)}".strip() in capsys.readouterr().out


def test_the_help_lists_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for part in ("train", "evaluate", "pack", "exit codes:", "training diverged", "130"):
        assert part in text


@pytest.mark.parametrize("main", [train.main, evaluate.main])
def test_the_modules_that_torchrun_starts_explain_themselves(
    main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "usage: python -m launch." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "CONFIG"),
        (["train", "c.yaml", "--nproc", "0"], "expected a number of processes, at least 1, or auto"),
        (["train", "c.yaml", "--nproc", "two"], "expected a number of processes"),
        (["evaluate"], "RUN_DIR"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("nproc", [["--nproc", "3"], ["--nproc=3"], ["--np", "3"]])
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["c.yaml", "--set", "a.b=1", "--set", "c=x y", "--set=d=--nproc"]),
        ("evaluate", ["run", "--da", "d.rec", "--weights", "w.pt", "--pairs=p.txt", "--out", "o", "--flip"]),
        ("evaluate", ["--", "-run"]),
        ("embed", ["run", "set", "out.npy", "--flip", "--images-per-part=128"]),
    ],
)
def test_ranks_are_given_the_words_of_the_command_but_the_launchers_own(
    command: str, words: list[str], nproc: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks_words: list[list[str]] = []

    def run_ranks(module: str, given: list[str], number: int, restarts: int) -> int:
        ranks_words.append([module, *given])
        return number

    monkeypatch.setattr(cli, "load_config", lambda path, overrides: None)
    monkeypatch.setattr(cli, "refuse_missing_apex", lambda config: None)
    monkeypatch.setattr(cli, "run_ranks", run_ranks)
    assert cli.main([command, *nproc, *words]) == 3
    if "--" not in words:
        assert cli.main([command, *words, *nproc]) == 3
    assert all(given == [f"launch.{command}", *words] for given in ranks_words)


@pytest.mark.processes
def test_an_option_added_to_the_arguments_of_a_run_reaches_its_ranks_by_itself(tmp_path: Path, config: Path) -> None:
    words = [sys.executable, "-m", "added_option", "train", str(config), "--added", str(tmp_path), "--nproc", "2"]
    path = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])}
    ended = subprocess.run(words, env={**tiny.environment(), **path}, capture_output=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert {file.name for file in tmp_path.glob("rank-*")} == {"rank-0", "rank-1"}


WITHOUT_TORCH = """
import sys
from launch import cli
try:
    code = cli.main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code
slow = [name for name in ("torch", "nvidia.dali", "matplotlib", "pyarrow", "rich") if name in sys.modules]
sys.exit(f"imported: {slow}" if slow else code)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["train", "--help"], 0),
        (["plan", "--help"], 0),
        (["verify", "--help"], 0),
        (["trian"], 2),
        (["train", "c.yaml", "--nproc", "0"], 2),
        (["train", "none.yaml"], 2),
        (["train", "CONFIG", "--set", "backbone.widht=3"], 2),
        (["train", "CONFIG", "--set", "backbone.name=r19"], 2),
        (["train", "CONFIG", "--set", "backbone={name: r50, drop_path: 0.1}"], 2),
        (["train", "CONFIG", "--set", "objective={name: adacos, scalee: 3}"], 2),
        (["plan", "CONFIG", "--set", "objective={name: cosface, scale: 300}"], 2),
        (["train", "CONFIG", "--nproc", "2", "--set", "schedule.batch_size=many"], 2),
        (["plan", "CONFIG", "--gpu-memory", "80 giga"], 2),
    ],
)
def test_help_and_what_is_refused_wait_for_no_library(config: Path, words: list[str], code: int) -> None:
    words = [str(config) if word == "CONFIG" else word for word in words]
    ended = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False)
    assert (ended.returncode, "imported" in ended.stderr) == (code, False), ended.stderr


# Exit codes of one process


@pytest.mark.parametrize(
    ("override", "code", "said"),
    [
        ("backbone.widht=3", 2, "backbone: unknown key 'widht', the nearest is 'width'"),
        ("objective.max_scal=3", 2, "objective: unknown key 'max_scal', the nearest is 'max_scale'"),
        ("data.num_classes=13", 2, "data.num_classes is 13, but"),
        ("schedule.batch_size=1", 2, "schedule.batch_size is 1: BatchNorm needs two images"),
        ("data.train=none.rec", 3, "none.rec is missing; expected a RecordIO file"),
        ("data.evaluate=none.rec", 3, "none.rec is missing; expected a RecordIO file"),
        ("backbone.weights=none.pt", 3, "none.pt is missing"),
        ("run_dir=/dev/null/run", 3, "/dev/null/run"),
    ],
)
def test_a_mistake_is_one_line_and_its_exit_code(
    config: Path, override: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", str(config), "--nproc", "1", "--set", override]) == code
    printed = capsys.readouterr()
    assert printed.err.startswith("partial-fc: ")
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert "step " not in printed.out, "nothing was trained"


@pytest.mark.processes
def test_three_ranks_refuse_a_batch_of_fewer_than_two_images_each_before_they_run_the_network(config: Path) -> None:
    ended = tiny.partial_fc("train", config, "--nproc", "3", "--set", "schedule.batch_size=5")
    assert ended.returncode == 2
    assert "schedule.batch_size is 5: BatchNorm needs two images on each of 3 ranks, 6 together" in ended.stderr


def test_weights_that_are_not_numbers_end_training_before_its_first_step(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tiny.backbone(load_config(config)).state_dict()
    torch.save({**state, "fc.bias": torch.full_like(state["fc.bias"], torch.nan)}, tmp_path / "nan.pt")
    words = ["--set", f"backbone.weights={tmp_path / 'nan.pt'}", "--set", "divergence.most_skipped=0"]
    assert cli.main(["train", str(config), "--nproc", "1", *words]) == 4
    printed = capsys.readouterr().err
    assert "the loss is nan at step 0" in printed
    assert "no weight was updated by it" in printed
    assert "keys: optimizer.learning_rate" in printed
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_taken_port_is_said_with_the_key_to_change(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ["--set", "report.prometheus=true", "--set", f"report.port={port}"]
        assert cli.main(["train", str(config), "--nproc", "1", *words]) == 3
    assert "report.port" in capsys.readouterr().err


def test_the_traceback_can_be_asked_for(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTIAL_FC_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError, match=r"none\.rec is missing"):
        cli.main(["train", str(config), "--nproc", "1", "--set", "data.train=none.rec"])


@pytest.mark.processes
def test_a_bad_config_is_refused_before_any_rank_starts(config: Path) -> None:
    ended = tiny.partial_fc("train", config, "--nproc", "2", "--set", "optimizer.learning_rat=1")
    assert ended.returncode == 2
    assert ended.stdout == ""
    said = "optimizer: unknown key 'learning_rat', the nearest is 'learning_rate'"
    assert ended.stderr == f"partial-fc: {config}: {said}\n"


# Two real ranks


@dataclass(frozen=True)
class Watched:
    """A run of two ranks that has ended, and the last that each rank's endpoint showed while it trained."""

    run_dir: Path
    exit_code: int
    printed: str
    errors: str
    pages: tuple[str, str]

    def samples(self, rank: int) -> dict[str, float]:
        families = text_string_to_metric_families(self.pages[rank])
        return {sample.name: sample.value for family in families for sample in family.samples}


@pytest.fixture(scope="module")
def watched(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """``partial-fc train --nproc 2`` with an endpoint per rank, both read until they show figures and a checkpoint."""
    folder = tmp_path_factory.mktemp("watched")
    port = free_port(in_a_row=2)
    report = {"prometheus": True, "port": port, "every_steps": 5}
    content = tiny.tree(data, folder / "run", report=report, schedule={"epochs": 10}, save_every_steps=25)
    command = tiny.command("train", tiny.write_config(folder / "config.yaml", content), "--nproc", "2")
    with subprocess.Popen(command, env=tiny.environment(), stdout=-1, stderr=-1, text=True) as process:
        pages = ["", ""]

        def both_show_figures() -> bool:
            for rank in range(2):
                pages[rank] = page(port + rank) or pages[rank]
            is_saved = "partial_fc_last_checkpoint_timestamp_seconds{" in pages[0]
            return is_saved and all("partial_fc_loss{" in text for text in pages)

        waited_for(both_show_figures, process)
        printed, errors = process.communicate(timeout=PATIENCE_SECONDS)
    return Watched(folder / "run", process.returncode, printed, errors, (pages[0], pages[1]))


def page(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5.0) as answer:
            text: str = answer.read().decode()
            return text
    except (urllib.error.URLError, ConnectionError):
        return ""


@pytest.mark.processes
def test_two_ranks_train_to_the_end_and_say_so(watched: Watched) -> None:
    assert (watched.exit_code, watched.errors) == (0, "")
    assert "60 steps of 16 on 2 x cpu" in watched.printed
    assert watched.printed.count("step 60/60") == 1, "one rank speaks for all"
    assert "rank-1" in watched.printed
    assert str(watched.run_dir / "report.html") in watched.printed


@pytest.mark.processes
def test_every_rank_answers_prometheus_while_it_trains(watched: Watched) -> None:
    losses = {record["loss"] for record in metrics(watched.run_dir)}
    for rank in range(2):
        found = watched.samples(rank)
        steps = found["partial_fc_steps_total"]
        assert 5 <= steps <= 60
        assert found["partial_fc_images_total"] == 8 * steps, "this rank's half of the batch of 16"
        assert found["partial_fc_step_seconds_count"] == found["partial_fc_data_wait_seconds_count"] == steps
        assert found["partial_fc_step_seconds_sum"] > found["partial_fc_data_wait_seconds_sum"] >= 0.0
        assert found["partial_fc_loss"] in losses, "what the first rank wrote down, to the last digit"
        assert 1.0 < found["partial_fc_scale"] <= 64.0
        assert 0.0 < found["partial_fc_median_target_angle_radians"] < 3.2
        assert 0.0 < found["partial_fc_learning_rate"] <= 0.05
        assert abs(time.time() - found["partial_fc_last_step_timestamp_seconds"]) < 10 * PATIENCE_SECONDS
        assert found["partial_fc_run_info"] == 1.0
        assert found["partial_fc_restarts"] == 0.0
        assert found["partial_fc_checkpoint_seconds_count"] == found["partial_fc_checkpoint_pause_seconds_count"]
        assert (found["partial_fc_checkpoint_seconds_count"] > 0) == (rank == 0), "one rank finishes a checkpoint"
        assert ("partial_fc_last_checkpoint_timestamp_seconds" in found) == (rank == 0)
        assert 'world_size="2"' in watched.pages[rank]


@pytest.mark.processes
def test_metrics_are_written_once_for_both_ranks(watched: Watched) -> None:
    records = metrics(watched.run_dir)
    assert [record["step"] for record in records] == list(range(5, 61, 5))
    assert [record["images"] for record in records] == list(range(80, 961, 80))
    assert sum(record["loss"] for record in records[-3:]) < sum(record["loss"] for record in records[:3])


@pytest.mark.processes
def test_each_rank_leaves_its_part_of_the_head(watched: Watched) -> None:
    folders = whole_checkpoints(watched.run_dir / "checkpoints")
    assert [folder.path.name for folder in folders] == ["step-00000025", "step-00000050", "step-00000060"]
    whole = {"backbone.pt", "manifest.json", "shared.safetensors"}
    whole |= {f"rank-0000{rank}-of-00002.safetensors" for rank in range(2)}
    assert all({file.name for file in folder.path.iterdir()} == whole for folder in folders)
    assert all(folder.problems() == [] for folder in folders)


@pytest.mark.processes
def test_one_rank_evaluates_to_the_figures_that_two_found(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(watched.run_dir), "--nproc", "1", "--out", str(tmp_path)]) == 0
    first, second = (json.loads((path / "evaluation.json").read_text()) for path in (watched.run_dir, tmp_path))
    assert first == second
    assert f"{first['rank1']:.4f}" in capsys.readouterr().out


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def diverging_rank(config: str, folder: str) -> None:
    """One rank's main, and on file what it said; nobody waits for torchrun, which would end it."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as errors:
        patch.setattr("launch.errors._MOMENT_SECONDS", 0.0)
        words = "optimizer.learning_rate=1e30", "optimizer.clip_norm=null", "divergence.most_skipped=0"
        exit_code = train.main([config, *(part for word in words for part in ("--set", word))])
    Path(folder, f"rank-{os.environ['RANK']}").write_text(f"{exit_code} {errors.getvalue()}")


@pytest.mark.processes
def test_two_ranks_stop_together_when_training_diverges_and_one_says_so(config: Path, tmp_path: Path) -> None:
    tiny.processes(2, diverging_rank, str(config), str(tmp_path))
    assert (tmp_path / "rank-0").read_text().startswith("4 partial-fc: the loss is nan at step 1 (")
    assert (tmp_path / "rank-1").read_text() == "4 "
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.processes
def test_what_only_the_second_rank_meets_is_said_by_it_alone(data: Path, tmp_path: Path) -> None:
    """The first rank, whose own port is free, waits for a partner that is lost, and must not hang."""
    port = free_port(in_a_row=2)
    content = tiny.tree(data, tmp_path / "run", report={"prometheus": True, "port": port})
    with socket.create_server(("127.0.0.1", port + 1)):
        ended = tiny.partial_fc("train", tiny.write_config(tmp_path / "config.yaml", content), "--nproc", "2")
    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    assert line.startswith("partial-fc: ")
    assert f"{port + 1}" in line
    assert "report.port" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.processes
def test_ctrl_c_ends_the_command_and_its_ranks_without_a_word(config: Path, tmp_path: Path) -> None:
    words = ("--nproc", "2", "--set", "schedule.epochs=100000", "--set", "schedule.warmup_epochs=0")
    with subprocess.Popen(
        tiny.command("train", config, *words), env=tiny.environment(), stdout=-1, stderr=-1, text=True
    ) as process:
        file = tmp_path / "run" / "metrics.jsonl"
        waited_for(lambda: file.exists() and file.stat().st_size > 0, process)
        ranks = [int(pid) for pid in children(process.pid)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, errors) == (130, "")
    assert len(ranks) == 2
    assert not [pid for pid in ranks if Path(f"/proc/{pid}").exists()]


@pytest.mark.processes
def test_a_training_in_one_process_that_is_told_to_end_while_it_starts_leaves_nothing_behind(
    config: Path, tmp_path: Path
) -> None:
    words = ("--nproc", "1", "--set", "schedule.epochs=100000", "--set", "schedule.warmup_epochs=0")
    with subprocess.Popen(
        tiny.command("train", config, *words), env=tiny.environment(), stdout=-1, stderr=-1, text=True
    ) as process:
        waited_for((tmp_path / "run" / ".lock").exists, process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 143, errors
    assert not (tmp_path / "run" / ".lock").exists()


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
