"""``partial-fc top`` as users meet it: a real run by its folder, in a file and in a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from ports import free_port

from launch import cli
from launch.run_files import Owner, RunFiles

PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    """A run of this process, with its reports and its checkpoint."""
    folder = tmp_path_factory.mktemp("top")
    content = tiny.tree(tiny.write_data(folder), folder / "run", report={"every_steps": 1})
    content["data"].pop("evaluate")
    assert cli.main(["train", str(tiny.write_config(folder / "config.yaml", content)), "--nproc", "1"]) == 0
    return RunFiles(folder / "run")


def reports(run: RunFiles) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def test_a_run_is_printed_once_where_nobody_watches(finished: RunFiles, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", str(finished.path)]) == 0
    printed, last = " ".join(capsys.readouterr().out.split()), reports(finished)[-1]
    assert f"step {last['step']}/{last['total_steps']}" in printed
    assert f"loss {last['loss']:.4f}" in printed
    assert f"scale {last['scale']:.4g}" in printed
    assert "adacos" in printed
    assert "checkpoint " in printed
    assert printed.endswith("the run has ended: all steps are done")


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (["."], 3, ". is no run: expected the folder of one"),
        (["nothing/there"], 3, "nothing/there is no run"),
        ([f"127.0.0.1:{free_port()}"], 3, "does not answer"),
        (["ftp://127.0.0.1:21"], 2, "expected an endpoint such as"),
        (["run", "other"], 2, "top watches one run"),
        (["run", "127.0.0.1:9410"], 2, "top watches one run"),
    ],
)
def test_what_cannot_be_watched_is_said_in_a_line(
    words: list[str], exit_code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["top", *words]) == exit_code
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("every", ["0", "often"])
def test_how_often_is_a_number_of_seconds(every: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["top", "run", "--every", every])
    assert ended.value.code == 2
    assert "expected a number of seconds" in capsys.readouterr().err


class Terminal:
    """The command in a pseudo-terminal, and all that it has drawn there."""

    def __init__(self, *words: object) -> None:
        ours, theirs = pty.openpty()
        environment = {**tiny.environment(), "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        # Tests that a shell runs in the background ignore Ctrl-C, and so would all that they start.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(
            tiny.command("top", *words), stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        signal.signal(signal.SIGINT, before)
        os.close(theirs)
        self._ours, self.drawn = ours, ""

    def wait_for(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not what():
            assert time.monotonic() < end, self.drawn
            if select.select([self._ours], [], [], 0.05)[0]:
                try:
                    self.drawn += os.read(self._ours, 1 << 16).decode(errors="replace")
                except OSError:  # the other side is closed
                    time.sleep(0.05)

    def exit_code(self) -> int:
        self.wait_for(lambda: self.process.poll() is not None)
        return self.process.returncode

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.mark.processes
def test_a_terminal_follows_the_run_to_its_end(finished: RunFiles, tmp_path: Path) -> None:
    lines, run = finished.metrics.read_text().splitlines(keepends=True), RunFiles(tmp_path / "run")
    run.path.mkdir()
    run.lock.write_text(str(Owner.this_process()))
    run.metrics.write_text("".join(lines[:2]))
    with Terminal(run.path, "--every", "0.1") as terminal:
        terminal.wait_for(lambda: f"step 2/{len(lines)}" in terminal.drawn)
        with run.metrics.open("a") as file:
            file.write("".join(lines[2:]))
        terminal.wait_for(lambda: "the run saves or is evaluated" in terminal.drawn)
        run.lock.unlink()
        assert terminal.exit_code() == 0
    after = terminal.drawn.rpartition("\x1b[?1049l")[2]
    assert f"step {len(lines)}/{len(lines)}" in after, "what was there last stays on the screen"
    assert "the run has ended: all steps are done" in after


@pytest.mark.processes
def test_ctrl_c_ends_quietly(finished: RunFiles, tmp_path: Path) -> None:
    run = RunFiles(tmp_path / "run")
    run.path.mkdir()
    run.lock.write_text(str(Owner.this_process()))
    run.metrics.write_text(finished.metrics.read_text().partition("\n")[0] + "\n")
    with Terminal(run.path) as terminal:
        terminal.wait_for(lambda: "step 1/" in terminal.drawn)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.exit_code() == 0
    assert "Traceback" not in terminal.drawn
    assert "step 1/" in terminal.drawn.rpartition("\x1b[?1049l")[2]


def test_a_look_at_a_run_waits_for_no_torch() -> None:
    program = (
        "import sys, launch.cli, launch.commands.top, launch.watching.endpoints, launch.watching.folder; "
        "sys.exit(' '.join(name for name in ('torch', 'nvidia', 'pyarrow', 'matplotlib') if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
