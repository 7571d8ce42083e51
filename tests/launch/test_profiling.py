"""``partial-fc profile``: what it records of a training, and that it leaves the training's folder as it was."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
from rich.console import Console
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import EventList, FunctionEvent

from launch import cli, profiling, train
from partial_fc.checkpoint.layout import partial_folder

NAMED = ("wait for data", "backbone, forward", "head, forward", "Optimizer.step#SGD.step")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    content = tiny.tree(tiny.write_data(tmp_path / "data"), tmp_path / "run", data={"evaluate": None})
    return tiny.write_config(tmp_path / "config.yaml", content)


def events_in(trace: Path) -> Counter[str]:
    with gzip.open(trace, "rt") as file:
        tree: dict[str, Any] = json.load(file)
    return Counter(event["name"] for event in tree["traceEvents"] if event["name"] in NAMED)


def contents(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in files.items() if name.parts[0] != "profile"}


def test_the_steps_are_recorded_and_nothing_is_trained(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profiling.main([str(config), "--steps", "4", "--out", str(tmp_path / "out")]) == 0
    assert events_in(tmp_path / "out" / "trace-rank-0.json.gz") == dict.fromkeys(NAMED, 4)
    text = (tmp_path / "out" / "profile.txt").read_text()
    assert "one step, mean of 4 after step 3, rank 0 of 1" in text
    assert all(phase in text for phase in profiling.PHASES.values())
    assert "aten::convolution_backward" in text
    assert "the whole step" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_run_is_recorded_from_its_last_checkpoint_on_and_left_as_it_is(config: Path, tmp_path: Path) -> None:
    assert train.main([str(config)]) == 0
    run = tmp_path / "run"
    beginning = partial_folder(run / "checkpoints", 9)  # of a run that trains on beside this
    beginning.mkdir()
    (beginning / "rank-0.json").write_text("{}")
    before = contents(run)
    assert profiling.main([str(config), "--steps", "2"]) == 0
    assert contents(run) == before
    assert "mean of 2 after step 9" in (run / "profile" / "profile.txt").read_text()


def test_another_configuration_than_the_runs_is_refused(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([str(config)]) == 0
    assert profiling.main([str(config), "--set", "optimizer.learning_rate=0.01"]) == 2
    assert "optimizer.learning_rate was 0.05 and is 0.01" in capsys.readouterr().err


def test_no_steps_are_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["profile", str(config), "--steps", "0"])
    assert "'0': expected a number of steps, at least 1" in capsys.readouterr().err


@pytest.mark.processes
def test_each_rank_has_a_trace_of_its_own(config: Path, tmp_path: Path) -> None:
    done = tiny.partial_fc("profile", config, "--nproc", 2, "--steps", 2)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert events_in(tmp_path / "run" / "profile" / f"trace-rank-{rank}.json.gz")["head, forward"] == 2
    assert "rank 0 of 2" in done.stdout


class OnGPU:
    """What the profiler has of one kernel: the operation that starts it, a name given around it, the kernel itself."""

    def key_averages(self) -> Any:
        event = partial(FunctionEvent, thread=1, start_us=0, stack=[], use_device="cuda")
        operation = event(0, "aten::mm", end_us=20)
        operation.append_kernel("gemm", 0, 3000)  # type: ignore[no-untyped-call]
        on_gpu = partial(event, end_us=3000, device_type=DeviceType.CUDA)
        given = [operation, on_gpu(1, "backbone, forward", is_user_annotation=True), on_gpu(2, "gemm")]
        events: Any = EventList(given, use_device="cuda")  # type: ignore[no-untyped-call]
        events._build_tree()
        return events.key_averages()


def test_each_kernel_stands_once_in_the_operations_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "_on_gpus", lambda: ["CUDA"])
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(profiling._operations(OnGPU(), 1))  # type: ignore[arg-type]
    text = console.export_text()
    assert "gemm" in text
    assert "100.0 %" in text
    assert "aten::mm" not in text
    assert "backbone, forward" not in text
