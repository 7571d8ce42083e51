"""The folder of a run: a refused start touches nothing, two starts never mix, and no set of images is written into."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import tiny

from launch import cli, train
from launch.assembly.run_folder import RunFolder, refuse_inside_set
from launch.config.loading import ConfigError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


def written(folder: Path) -> dict[str, str]:
    """Every file below ``folder``, and what it holds."""
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*")) if file.is_file()}


def finished_run(folder: Path) -> dict[str, str]:
    (folder / "checkpoints" / "step-00000001").mkdir(parents=True)
    (folder / "checkpoints" / "step-00000001" / "manifest.json").write_text("{}")
    (folder / "config.yaml").write_text("the earlier run's")
    (folder / "notes.txt").write_text("the user's")
    return written(folder)


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("schedule.batch_size=1", 2),
        ("data.num_classes=13", 2),
        ("data.images_per_identity_in_batch=3", 2),
        ("data.train=none.rec", 3),
        ("data.evaluate=none.rec", 3),
        ("data.quarantine=none.tsv", 3),
        ("backbone.weights=none.pt", 3),
        ("report={prometheus: true, port: 1, address: 203.0.113.1}", 3),
    ],
)
@pytest.mark.parametrize("holds_run", [True, False])
def test_a_start_that_is_refused_touches_nothing(
    data: Path, tmp_path: Path, override: str, code: int, holds_run: bool
) -> None:
    run_dir = tmp_path / "runs" / "run"
    before = finished_run(run_dir) if holds_run else {}
    config = tiny.write_config(tmp_path / "config.yaml", tiny.tree(data, run_dir))
    assert train.main([str(config), "--set", override, "--set", "resume=never"]) == code
    assert written(tmp_path / "runs") == {f"run/{name}": text for name, text in before.items()}
    assert (tmp_path / "runs").exists() == holds_run


def test_a_taken_port_is_found_before_the_earlier_run_is_moved(data: Path, tmp_path: Path) -> None:
    before = finished_run(tmp_path / "runs" / "run")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        report = {"prometheus": True, "port": taken.getsockname()[1]}
        tree = tiny.tree(data, tmp_path / "runs" / "run", report=report)
        config = tiny.write_config(tmp_path / "config.yaml", tree)
        assert train.main([str(config), "--set", "resume=never"]) == 3
    assert written(tmp_path / "runs" / "run") == before
    assert os.listdir(tmp_path / "runs") == ["run"]


def test_a_folder_in_use_is_refused_with_the_process_that_has_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    config = tiny.write_config(tmp_path / "config.yaml", tiny.tree(data, run_dir))
    with RunFolder(run_dir).locked():
        before = written(run_dir)
        assert train.main([str(config)]) == 3
        assert written(run_dir) == before
        said = f"{run_dir} is in use by process {os.getpid()} on {socket.gethostname()}: wait for that run, end it, or"
        assert said in capsys.readouterr().err
    assert not run_dir.exists()
    assert train.main([str(config), "--set", "schedule.epochs=0.1"]) == 0
    assert not RunFolder(run_dir).lock.exists()


def test_the_lock_stays_while_the_earlier_run_is_moved(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    before = finished_run(folder.path)
    with folder.locked():
        assert folder.set_aside() == tmp_path / "run-1"
        with pytest.raises(ValueError, match="in use"), RunFolder(folder.path).locked():
            pass
    assert written(tmp_path) == {f"run-1/{name}": text for name, text in before.items()}


def test_a_process_that_ends_in_time_is_waited_for(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    with ExitStack() as other:
        other.enter_context(folder.locked())
        leaving = threading.Timer(0.3, other.pop_all().close)
        leaving.start()
        with pytest.raises(ValueError, match="in use"), RunFolder(folder.path).locked(0.01):
            pass
        with RunFolder(folder.path).locked(60.0):
            assert folder.lock.exists()
        leaving.join()


HOLDER = """
import sys, time
from pathlib import Path
from launch.assembly.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    time.sleep(100)
"""


@pytest.mark.processes
def test_the_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder.path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match=f"in use by process {other.pid} on "), folder.locked():
            pass
        other.send_signal(signal.SIGKILL)
    assert folder.lock.exists()
    with folder.locked():
        pass
    assert not folder.lock.exists()


def test_a_run_never_lies_where_images_are(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    (photos / "Ann").mkdir(parents=True)
    (photos / "Ann" / "1.jpg").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    for run_dir, sets, said in (
        (photos, [], r"photos holds no run but .*1\.jpg"),
        (tmp_path / "link", [], r"holds no run but .*1\.jpg"),
        (photos, [photos], r"run_dir .*photos lies in the set .*photos"),
        (photos / "run", [data / "train", photos], "lies in the set .*photos"),
        (tmp_path / "link" / "run", [photos], "lies in the set"),
        (data, [], r"holds no run but .*train\.(rec|idx)"),
        (tmp_path / "new", [tmp_path / "new" / "list.txt"], "contains the set .*list.txt"),
        (tmp_path / "file", [], "file is a file"),
        (Path("."), [], "the folder this command runs in"),
        (tmp_path.parent, [], "the folder this command runs in, or one around it"),
    ):
        with pytest.raises(ConfigError, match=said):
            RunFolder(run_dir).refuse_unfit(sets)
    RunFolder(tmp_path / "new").refuse_unfit([photos, data / "train" / "train.rec"])
    finished_run(tmp_path / "run")
    (tmp_path / "run" / "figure.png").touch()
    RunFolder(tmp_path / "run").refuse_unfit([photos])
    refuse_inside_set("--out", data / "train" / "run", data / "train" / "train.rec")


@pytest.mark.parametrize(
    "words",
    [
        ["pack", "folder", "photos", "--out", "photos/packed"],
        ["pack", "folder", "photos", "--out", "photos"],
        ["inspect", "photos", "--out", "photos/look"],
        ["verify", "photos", "--out", "photos/quarantine.tsv"],
        ["pack", "convert", "photos", "--out", "photos/packed"],
    ],
)
def test_no_command_writes_into_the_set_that_it_reads(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for identity in range(2):
        (tmp_path / "photos" / str(identity)).mkdir(parents=True)
        (tmp_path / "photos" / str(identity) / "0.png").write_bytes(tiny.encoded(identity, 0))
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(words) in (2, 3)
    assert "photos" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
