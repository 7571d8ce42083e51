"""A run that is stopped, killed or given again goes on, and ends as one that was never disturbed. Real processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import Tensor

from launch import train
from launch.config.loading import ConfigError, load_config
from launch.resilience import resume
from partial_fc.checkpoint.layout import CheckpointFolder, latest_checkpoint, whole_checkpoints

PATIENCE_SECONDS = 120.0
SAVE_EVERY, EPOCHS = 10, 12  # 72 steps: a busy machine has time to kill a rank after the third save
pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


def config_at(folder: Path, data: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = tiny.tree(
        data,
        folder / "run",
        data={"evaluate": None, "augmentation": {"mirror": 0.5, "crop": 0.3}},
        backbone={"dropout": 0.2},
        classifier={"momentum": 0.9},
        schedule={"epochs": EPOCHS},
        save_every_steps=SAVE_EVERY,
        checkpoint={"keep_last": 100},
    )
    return tiny.write_config(folder / "config.yaml", content)


def started(config: Path, nproc: int, *words: str) -> subprocess.Popen[str]:
    command = tiny.command("train", config, "--nproc", nproc, *words)
    return subprocess.Popen(
        command,
        env=tiny.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(config: Path, nproc: int) -> str:
    process = started(config, nproc)
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, said
    return said


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that train: the started one, or those below it that hold the ranks."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            session = os.getsid(int(entry.name))
        except OSError:
            continue
        if b"launch.train" in words and session != process.pid and _descends(int(entry.name), process.pid):
            found.append(int(entry.name))
    return found or [process.pid]


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        try:
            pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
        if pid == ancestor:
            return True
    return False


def state_at_end(run: Path) -> dict[str, Tensor]:
    """Every tensor of the last checkpoint, by file and name."""
    folder = latest_checkpoint(run / "checkpoints")
    assert CheckpointFolder(folder).problems() == []
    tensors = {f"backbone {key}": each.clone() for key, each in torch.load(folder / "backbone.pt").items()}
    for file in sorted(folder.glob("*.safetensors")):  # copies: the files are mapped, and one test damages them
        tensors |= {f"{file.name} {name}": value.clone() for name, value in load_file(file).items()}
    return tensors


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, Tensor]]:
    states: dict[int, dict[str, Tensor]] = {}

    def state(nproc: int) -> dict[str, Tensor]:
        if nproc not in states:
            config = config_at(tmp_path_factory.mktemp(f"undisturbed-{nproc}"), data)
            finished(config, nproc)
            states[nproc] = state_at_end(config.parent / "run")
        return states[nproc]

    return state


@pytest.mark.parametrize("nproc", [1, 2, 3])
def test_a_run_told_to_end_saves_and_goes_on_to_the_same_bits(
    data: Path, tmp_path: Path, nproc: int, undisturbed: Callable[[int], dict[str, Tensor]]
) -> None:
    config, metrics = config_at(tmp_path, data), tmp_path / "run" / "metrics.jsonl"
    process = started(config, nproc)
    until(lambda: metrics.exists() and metrics.read_text().count("\n") >= 2, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 143, said
    saved = whole_checkpoints(tmp_path / "run" / "checkpoints")
    assert saved, said
    assert saved[-1].problems() == []
    assert f"going on after step {saved[-1].manifest().step:,}" in finished(config, nproc)
    assert_same(state_at_end(tmp_path / "run"), undisturbed(nproc))


@pytest.mark.parametrize("nproc", [1, 2])
def test_a_run_whose_rank_is_killed_loses_no_more_than_an_interval(
    data: Path, tmp_path: Path, nproc: int, undisturbed: Callable[[int], dict[str, Tensor]]
) -> None:
    config = config_at(tmp_path, data)
    checkpoints = tmp_path / "run" / "checkpoints"
    for kills in range(1, 3):
        process = started(config, nproc)
        until(lambda kills=kills: len(whole_checkpoints(checkpoints)) > kills, process)  # type: ignore[misc]
        os.kill(ranks_of(process)[-1], signal.SIGKILL)
        process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode != 0
    before = whole_checkpoints(checkpoints)[-1].manifest().step
    assert f"going on after step {before:,}" in finished(config, nproc)
    assert_same(state_at_end(tmp_path / "run"), undisturbed(nproc))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_started_again_and_the_run_ends_as_if_nothing_had_been(
    data: Path, tmp_path: Path, rank: int, undisturbed: Callable[[int], dict[str, Tensor]]
) -> None:
    config = config_at(tmp_path, data)
    checkpoints = tmp_path / "run" / "checkpoints"
    process = started(config, 2, "--max-restarts", "2")
    for kills in range(1, 3):
        until(lambda kills=kills: len(whole_checkpoints(checkpoints)) > kills, process)  # type: ignore[misc]
        os.kill(sorted(ranks_of(process))[rank], signal.SIGKILL)
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, said
    assert said.count("going on after step") == 2
    assert_same(state_at_end(tmp_path / "run"), undisturbed(2))


def test_a_rank_that_hangs_is_ended_and_started_again_and_the_run_ends_as_if_nothing_had_been(
    data: Path, tmp_path: Path, undisturbed: Callable[[int], dict[str, Tensor]]
) -> None:
    config = config_at(tmp_path, data)
    limit_seconds, hung_step = 5.0, 2 * SAVE_EVERY + 3
    config.write_text(f"{config.read_text()}\nwatchdog: {{step_seconds: {limit_seconds}}}\n")
    words = [sys.executable, "-m", "hanging", "1", str(hung_step), str(config)]
    places = os.pathsep.join(map(str, (Path.cwd(), Path(__file__).parent)))
    environment = {**tiny.environment(), "PYTHONPATH": places}
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=3 * PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"going on after step {2 * SAVE_EVERY:,}" in done.stdout
    assert_same(state_at_end(tmp_path / "run"), undisturbed(2))
    stacks = {file.name: file.read_text() for file in (tmp_path / "run" / "stacks").iterdir()}
    for rank, where in enumerate(("all_gather", "in hang_here")):
        said = f"partial-fc: rank {rank}: step {hung_step} takes longer than 5 s (watchdog.step_seconds)"
        assert said in done.stderr
        assert said in stacks[f"rank-{rank:05d}.txt"]
        assert where in stacks[f"rank-{rank:05d}.txt"], "the rank that waits for the other says so"
    hangs, again = (float(found) for found in re.findall(r"(?:hangs|again) at (\d+\.\d+)", done.stdout))
    assert limit_seconds < again - hangs < limit_seconds + PATIENCE_SECONDS
    print(f"{again - hangs:.1f} s from the hang to the next start, {limit_seconds:g} s of them the limit")


def test_a_finished_run_given_again_trains_nothing(data: Path, tmp_path: Path) -> None:
    config = config_at(tmp_path, data)
    train.run(load_config(config, ["schedule.epochs=0.5"]))
    expected = state_at_end(tmp_path / "run")
    train.run(load_config(config, ["schedule.epochs=0.5"]))
    assert_same(state_at_end(tmp_path / "run"), expected)
    assert not (tmp_path / "run-1").exists()


def test_ranks_that_are_started_again_go_on_though_the_run_was_to_begin_anew(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_at(tmp_path, data)
    train.run(load_config(config, ["schedule.epochs=0.5"]))
    anew = load_config(config, ["schedule.epochs=0.5", "resume=never"])
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "an agent, this process's parent, started it")
    train.run(anew)
    assert not (tmp_path / "run-1").exists(), "the checkpoint is younger than the agent"
    monkeypatch.setattr(resume, "started_seconds", lambda process: time.time())
    with monkeypatch.context() as queued:
        queued.setenv("SLURM_JOB_ID", "7")
        train.run(anew)
        assert (tmp_path / "run-1").exists(), "that of an earlier run is not gone on with"
        train.run(anew)
    assert not (tmp_path / "run-2").exists(), "the job that Slurm queues again goes on, whatever its agent"
    train.run(anew)
    assert (tmp_path / "run-2").exists()


def test_a_run_of_which_no_checkpoint_can_be_used_is_not_begun_anew(data: Path, tmp_path: Path) -> None:
    config = config_at(tmp_path, data)
    train.run(load_config(config, ["schedule.epochs=0.5"]))
    for checkpoint in whole_checkpoints(tmp_path / "run" / "checkpoints"):
        manifest = json.loads(checkpoint.manifest_file.read_text())
        checkpoint.manifest_file.write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(ConfigError, match=r"none to go on from: .* of version 99.* resume=never to begin anew"):
        train.run(load_config(config, ["schedule.epochs=0.5"]))
    assert not (tmp_path / "run-1").exists()


def test_a_run_does_not_go_on_with_another_batch(data: Path, tmp_path: Path) -> None:
    config = config_at(tmp_path, data)
    train.run(load_config(config, ["schedule.epochs=0.5"]))
    with pytest.raises(ConfigError, match=r"of 16 images each, and schedule.batch_size is 8: its place in the images"):
        train.run(load_config(config, ["schedule.epochs=1", "resume=changed", "schedule.batch_size=8"]))


def test_the_disk_needs_no_room_for_checkpoints_that_new_ones_take_the_place_of(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, words = config_at(tmp_path, data), ["save_every_steps=1", "checkpoint.keep_last=2"]
    train.run(load_config(config, [*words, "schedule.epochs=0.5"]))
    each = max(sum(file.stat().st_size for file in folder.path.iterdir()) for folder in _whole(tmp_path))
    usage = shutil.disk_usage(tmp_path)._replace(free=each + each // 2)  # one more, and three lie there at once
    monkeypatch.setattr("launch.assembly.disk.shutil.disk_usage", lambda path: usage)
    monkeypatch.setattr("launch.resilience.resume._FREE", {"schedule", *resume._FREE})
    train.run(load_config(config, [*words, "schedule.epochs=1"]))
    with pytest.raises(ValueError, match=r"checkpoints of .* need"):
        train.run(load_config(config, [*words, "schedule.epochs=1", "resume=never"]))


def _whole(folder: Path) -> list[CheckpointFolder]:
    return whole_checkpoints(folder / "run" / "checkpoints")


def test_a_changed_config_is_refused_with_what_differs(data: Path, tmp_path: Path) -> None:
    config = config_at(tmp_path, data)
    train.run(load_config(config, ["schedule.epochs=0.5"]))
    with pytest.raises(
        ConfigError, match=r"begun otherwise: optimizer\.learning_rate was .* and is 0\.123; schedule\.epochs"
    ):
        train.run(load_config(config, ["optimizer.learning_rate=0.123"]))
    assert not (tmp_path / "run-1").exists()
    train.run(load_config(config, ["schedule.epochs=1", "resume=changed"]))
    assert not (tmp_path / "run-1").exists()
    train.run(load_config(config, ["schedule.epochs=0.5", "resume=never"]))
    assert (tmp_path / "run-1").exists()


def test_a_checkpoint_that_is_cut_short_is_passed_over(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_at(tmp_path, data)
    train.run(load_config(config, ["schedule.epochs=4"]))
    whole = whole_checkpoints(tmp_path / "run" / "checkpoints")
    expected = state_at_end(tmp_path / "run")
    file = whole[-1].path / "shared.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    train.run(load_config(config, ["schedule.epochs=4"]))
    said = capsys.readouterr().out
    assert f"{whole[-1].path} is passed over, kept as {whole[-1].path}.damaged: " in said
    assert f"going on after step {whole[-2].manifest().step:,}" in said
    assert_same(state_at_end(tmp_path / "run"), expected)
