"""What is said of an error: one line with what, where and the cure, and the exit code of its kind."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tiny
import torch
from torch._inductor.exc import InductorError

from launch import errors, train
from launch.config.loading import ConfigError
from launch.writing import naming, write_text
from partial_fc.divergence import TrainingDiverged
from partial_fc.reports.endpoint import EndpointError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


def line_and_code(error: Exception, capsys: pytest.CaptureFixture[str]) -> tuple[str, int]:
    with errors.reported() as outcome:
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    return line, outcome.exit_code


COMPILER_ERROR = InductorError(RuntimeError("C++ compile error\nfatal error: Python.h: No such file"), None)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("no\nsuch key"), 2, "partial-fc: no such key"),
        (ValueError("bad"), 3, "partial-fc: bad"),
        (FileNotFoundError(2, "No such file", "a [red]b"), 3, "a [red]b"),
        (TrainingDiverged("the loss is nan"), 4, "the loss is nan. The run's metrics.jsonl"),
        (EndpointError("port 1 is taken"), 3, "port 1 is taken. Set report.port"),
        (MemoryError(), 2, "out of memory (MemoryError). Ask `partial-fc plan CONFIG`"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), 2, "schedule.batch_size, with backbone.checkpoint_activ"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), 2, "9 bytes"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 2, "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/file"), 3, "no space for /file: "),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "a disk that this command writes to is full"),
        (OSError(errno.EDQUOT, "Quota exceeded", "/file"), 3, "bytes are free there. Make room"),
        (OSError(errno.ESTALE, "Stale file handle", "/file"), 1, "or the network to it, may be away for a while"),
        (
            COMPILER_ERROR,
            2,
            "(fatal error: Python.h: No such file). Nothing was trained with it: set backbone",
        ),
    ],
)
def test_an_error_that_a_user_can_mend_is_one_line(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line, found = line_and_code(error, capsys)
    assert found == code
    assert said in line
    assert len(line) < 800


def test_an_error_that_nobody_foresaw_comes_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="unheard of"), errors.reported():
        raise RuntimeError("unheard of")


@pytest.mark.parametrize(
    ("override", "part"),
    [("backbone.width=2000000000000", "the network"), ("backbone.embedding_dim=2000000000000", "the network")],
)
def test_a_run_that_needs_more_memory_than_there_is_says_what_did_not_fit(
    data: Path, tmp_path: Path, override: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.write_config(tmp_path / "config.yaml", tiny.tree(data, tmp_path / "run"))
    assert train.main([str(config), "--set", override]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"partial-fc: out of memory in {part} (")
    assert not (tmp_path / "run").exists()


def test_what_numpy_cannot_allocate_is_told_in_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    with errors.reported() as outcome:
        np.empty(1 << 50)
    assert (outcome.exit_code, "Unable to allocate 8.00 PiB" in capsys.readouterr().err) == (2, True)


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*file'"):
        write_text(tmp_path / "file", "text")
    with pytest.raises(FileExistsError, match=r"^mine$"), naming(tmp_path / "file"):
        raise FileExistsError("mine")


def test_a_checkpoint_without_space_names_its_file_and_its_bytes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(content: object, file: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("partial_fc.checkpoint.writing.torch.save", full)
    config = tiny.write_config(tmp_path / "config.yaml", tiny.tree(data, tmp_path / "run", schedule={"epochs": 0.1}))
    assert train.main([str(config)]) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert "no space for" in line
    assert "step-00000001.partial/backbone.pt: it needs " in line
    assert "are free. What was saved before is whole" in line


class Usage(NamedTuple):
    free: int


def test_checkpoints_that_will_not_fit_are_refused_before_the_first_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("launch.assembly.disk.shutil.disk_usage", lambda path: Usage(free=2_000_000))
    config = tiny.write_config(tmp_path / "config.yaml", tiny.tree(data, tmp_path / "run"))
    assert train.main([str(config), "--set", "save_every_steps=1"]) == 3
    printed = capsys.readouterr()
    assert "4 checkpoints of " in printed.err
    assert "1.91 MiB are free: make room, choose another run_dir, or keep fewer" in printed.err
    assert not (tmp_path / "run").exists()
    assert train.main([str(config)]) == 0
