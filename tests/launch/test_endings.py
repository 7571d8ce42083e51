"""How a run can end: exit code and what is on disk, measured, against the table of docs/resume.md.

``PARTIAL_FC_WRITE_DOCS=1`` writes the table anew.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import tiny
from ports import free_port

from benchmarks.chaos.disk import small_disk
from benchmarks.documents import DOCS, table, with_part, write_part
from launch import train
from partial_fc.checkpoint.layout import whole_checkpoints

SAVE_EVERY, STEPS = 5, 12
PATIENCE_SECONDS = 300.0
DISK_BYTES = 16 << 20  # ten checkpoints
BEFORE = "the checkpoints before"
pytestmark = pytest.mark.processes
Row = tuple[str, str, str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


class Ending:
    """A run in a folder of its own, which is saved every 5 steps."""

    def __init__(self, folder: Path, data: Path, epochs: float = STEPS / 6) -> None:
        self.run = folder / "run"
        folder.mkdir()
        content = tiny.tree(
            data,
            self.run,
            backbone={"width": 8},
            schedule={"epochs": epochs},
            save_every_steps=SAVE_EVERY,
            checkpoint={"keep_last": 1000},
        )
        self.config = tiny.write_config(folder / "config.yaml", content)

    def trained(self, *changes: str) -> int:
        """The exit code of a rank, in this process."""
        return train.main([str(self.config), *(word for change in changes for word in ("--set", change))])

    def started(self, *words: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """The real command; with a rank's ``environment``, that rank."""
        command = tiny.command("train", self.config, *words)
        if environment is not None:
            command = [sys.executable, "-m", "launch.train", str(self.config), *map(str, words)]
        with (self.run.parent / "said.txt").open("ab") as said:
            return subprocess.Popen(
                command,
                env={**tiny.environment(), **(environment or {})},
                stdout=said,
                stderr=said,
                text=True,
                start_new_session=True,
                preexec_fn=heed_ctrl_c,
            )

    def two_ranks(self) -> list[subprocess.Popen[str]]:
        """Two ranks without an agent, as a scheduler that sets their environment starts them."""
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        return [self.started(environment={**place, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]

    def said(self) -> str:
        file = self.run.parent / "said.txt"
        return file.read_text() if file.exists() else ""

    def until_saved(self, process: subprocess.Popen[str]) -> None:
        self.until(lambda: bool(self.steps()), process)

    def until(self, condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert process is None or process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.02)

    def steps(self) -> list[int]:
        """Of its whole checkpoints."""
        return [folder.manifest().step for folder in whole_checkpoints(self.run / "checkpoints")]

    def on_disk(self) -> str:
        """What it left, in the words of the table."""
        last = self.steps()[-1]
        if last == STEPS:
            evaluated = (self.run / "evaluation.json").exists() and (self.run / "report.html").exists()
            return "the last step's checkpoint" + (", evaluation, report" if evaluated else "")
        agreed = f"stopped after step {last:,}, which is saved" in self.said()
        return "a checkpoint of the step that all ranks agreed to stop after" if agreed else BEFORE


def heed_ctrl_c() -> None:
    """A shell's background jobs, which these tests may be one of, are started deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def code_of(process: subprocess.Popen[str]) -> str:
    """The exit code as a shell tells it."""
    code = process.wait(PATIENCE_SECONDS)
    return str(code if code >= 0 else 128 - code)


def ended_by_signals(data: Path, folder: Path) -> list[Row]:
    """The commands run beside each other: starting one is most of what it costs."""
    alone, agent = ("--nproc", 1), ("--nproc", 1, "--max-restarts", 1)
    endings = {
        "SIGTERM (Slurm, Kubernetes, a spot machine)": (alone, terminated),
        "Ctrl-C": (alone, interrupted),
        "a rank is killed": (("--nproc", 2), rank_killed),
        "the agent that started the ranks is killed": (agent, agent_killed),
    }
    runs = {what: Ending(folder / str(number), data, epochs=1000) for number, what in enumerate(endings)}
    processes = {what: runs[what].started(*words) for what, (words, _) in endings.items()}
    rows = []
    try:
        for what, (_, end) in endings.items():
            runs[what].until_saved(processes[what])
            end(runs[what], processes[what])
            code = code_of(processes[what])
            runs[what].until(lambda what=what: not ranks_of(processes[what]))  # type: ignore[misc]
            rows.append((what, code, runs[what].on_disk()))
    finally:
        for process in processes.values():
            process.kill()
    return [rows[0], ended_by_two_signals(Ending(folder / "twice", data, epochs=1000)), *rows[1:]]


def ended_by_two_signals(run: Ending) -> Row:
    """The first signal asks a rank to end whose partner hangs: they cannot agree on a step. The second ends it."""
    told, hanging = run.two_ranks()
    try:
        run.until_saved(told)
        hanging.send_signal(signal.SIGSTOP)
        time.sleep(1.0)  # the other now waits in a collective, where no handler of Python runs
        end = time.monotonic() + PATIENCE_SECONDS
        while told.poll() is None:  # signals within two seconds are one
            assert time.monotonic() < end, run.said()
            told.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        return "a second SIGTERM, two seconds after the first or later", code_of(told), run.on_disk()
    finally:
        for process in (told, hanging):
            process.kill()
            process.wait()


def terminated(run: Ending, process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)


def interrupted(run: Ending, process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def rank_killed(run: Ending, process: subprocess.Popen[str]) -> None:
    os.kill(ranks_of(process)[-1], signal.SIGKILL)


def agent_killed(run: Ending, process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The ranks of this command that live: each leads a session of its own, and names the same config."""
    config = Path(str(process.args[4])) if isinstance(process.args, list) else Path()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"launch.train" in words and str(config).encode() in words:
            found.append(int(entry.name))
    return sorted(found)


def ended_by_itself(data: Path, folder: Path) -> list[Row]:
    done = Ending(folder / "done", data)
    rows = [("its last step is done", str(done.trained()), done.on_disk())]
    saved = done.steps()
    code = done.trained(
        "resume=changed", "schedule.epochs=4", "optimizer.learning_rate=1e30", "optimizer.clip_norm=null"
    )
    assert done.steps() == saved
    rows.append(("the loss, or a weight about to be saved, is not finite", str(code), BEFORE))
    full = Ending(folder / "full", data, epochs=100)
    with small_disk(full.run, DISK_BYTES) as is_small:
        if not is_small:  # no right to mount one: the row is taken as it stands
            return [*rows, ("a disk is full", "3", BEFORE)]
        other = threading.Thread(target=fill_when_saved, args=[full])
        other.start()
        code = full.trained("checkpoint.keep_last=2")
        other.join()
        return [*rows, ("a disk is full", str(code), full.on_disk())]


def fill_when_saved(run: Ending) -> None:
    """What another program may do to the disk of a run."""
    run.until(lambda: bool(run.steps()))
    with (run.run / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(run.run).free)


def refused(data: Path, folder: Path) -> list[Row]:
    run = Ending(folder / "refused", data)
    assert run.trained() == 0
    last = whole_checkpoints(run.run / "checkpoints")[-1].path / "shared.safetensors"
    content = last.read_bytes()
    last.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    rows = []
    for what, change in (("a file of the checkpoint is damaged", "seed=0"), ("the configuration is refused", "seed=1")):
        before = {path: path.stat().st_mtime_ns for path in run.run.rglob("*")}
        code = run.trained(change)
        assert {path: path.stat().st_mtime_ns for path in run.run.rglob("*")} == before
        rows.append((what, str(code), "nothing was touched"))
    return rows


def test_the_table_of_endings_is_what_was_measured(data: Path, tmp_path: Path) -> None:
    ended = [row for measured in (ended_by_itself, ended_by_signals, refused) for row in measured(data, tmp_path)]
    rows = [(what, on_disk, code) for what, code, on_disk in ended]
    body = table(("what happens", "on disk", "exit code"), rows, text_columns=2)
    if os.environ.get("PARTIAL_FC_WRITE_DOCS") == "1":
        write_part(DOCS / "resume.md", "endings", body)
    page = (DOCS / "resume.md").read_text(encoding="utf-8")
    assert with_part(page, "endings", body) == page, "PARTIAL_FC_WRITE_DOCS=1 writes the table anew"
