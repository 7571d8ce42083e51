"""The measurement at scale from end to end in tiny numbers: commands, probes and trainer are the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import this_machine
from benchmarks.scale import __main__ as scale
from benchmarks.scale.tables import rows_of_opening
from benchmarks.trainer import TrainingError, train
from data_pipeline.formats.recordio.source import RecordSource

IDENTITIES, IMAGES, STEPS, BATCH, OPENINGS = 20, 4, 3, 16, 2


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    (folder / "performance.md").write_text("before\n<!-- scale -->\n<!-- /scale -->\nafter\n")
    return folder


@pytest.fixture(scope="module")
def words(docs: Path) -> list[str]:
    numbers = {"identities": IDENTITIES, "images": IMAGES, "batch": BATCH, "steps": STEPS, "softmax-steps": 2}
    places = {"data": docs.parent / "scale-data", "run-dir": docs.parent / "scale-runs", "docs": docs}
    return [f"--{name}={value}" for name, value in {**numbers, **places}.items()]


@pytest.fixture(scope="module")
def result(docs: Path, words: list[str]) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale, "OPENINGS", OPENINGS)
        assert scale.main([*words, "--nproc=2"]) == 0
    path = docs / "performance" / this_machine("cpu").name / "scale" / f"{IDENTITIES}x{IMAGES}.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.processes
def test_a_tiny_set_goes_all_the_way(result: dict[str, Any], docs: Path) -> None:
    assert {name for name in result if name != "machine"} == {
        *("packing", "opening", "first_batch", "shuffle", "p2sgrad", "adacos")
    }
    found = {name: part["figures"] for name, part in result.items() if name != "machine"}
    assert found["packing"]["rec_bytes"] == (docs.parent / "scale-data" / "train.rec").stat().st_size
    assert len(found["opening"]) == OPENINGS
    assert all(each["images"] == IDENTITIES * IMAGES for each in found["opening"])
    assert found["shuffle"]["seen_once"] == IDENTITIES * IMAGES
    assert 0.2 < found["shuffle"]["displacement"] < 0.5
    assert found["first_batch"]["images"] == BATCH
    assert 0 < found["first_batch"]["from_opening_seconds"] < found["first_batch"]["from_start_seconds"]


@pytest.mark.processes
@pytest.mark.parametrize(("objective", "steps"), [("p2sgrad", STEPS), ("adacos", 2)])
def test_two_ranks_train_and_their_memory_is_seen(result: dict[str, Any], objective: str, steps: int) -> None:
    found = result[objective]["figures"]
    assert (found["steps"], found["batch"]) == (steps, BATCH)
    assert len(found["peak_bytes_of_ranks"]) == 2
    for peak, own in zip(found["peak_bytes_of_ranks"], found["own_bytes_of_ranks"], strict=True):
        assert 50e6 < own < peak  # torch's libraries are files
    assert found["least_step_seconds"] <= found["step_seconds"] <= found["most_step_seconds"]
    assert found["to_first_step_seconds"] > 0
    assert 0 <= found["wait_share"] < 1


@pytest.mark.processes
def test_what_is_there_is_not_measured_again_unless_asked_for(
    result: dict[str, Any], docs: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert scale.main([*words, "--again", "shuffle"]) == 0
    assert [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()] == ["shuffle"]


@pytest.mark.processes
def test_the_tables_stand_between_their_markers(result: dict[str, Any], docs: Path) -> None:
    assert scale.main(["--document", "--docs", str(docs)]) == 0
    text = (docs / "performance.md").read_text()
    assert text.startswith("before\n<!-- scale -->\n### 20 identities, 80 images of 24 pixels\n")
    assert text.endswith("<!-- /scale -->\nafter\n")
    assert "| images that an epoch has exactly once | 80 of 80" in text
    assert "| P2SGrad, batches of 16 on 2 ranks | 3 |" in text


@pytest.mark.processes
def test_the_set_is_the_one_that_was_asked_for(result: dict[str, Any], docs: Path) -> None:
    source = RecordSource(docs.parent / "scale-data" / "train.rec")
    assert (len(source), source.num_classes) == (IDENTITIES * IMAGES, IDENTITIES)


@pytest.mark.processes
def test_another_set_in_the_folder_is_refused(
    result: dict[str, Any], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scale.main([*words, "--identities=21", f"--json={tmp_path / 'other.json'}"]) == 1
    assert "has a set of 20,24,24 (identities, height, width), not 21,24,24" in capsys.readouterr().err
    assert not (tmp_path / "other.json").exists()


def test_a_run_is_told_by_its_reports() -> None:
    reports = [
        {
            "step": 2 * number,
            "interval_steps": 2,
            "interval_images": 20,
            "images_per_second": 10 / seconds,
            "step_seconds": seconds,
            "data_wait_seconds": 0.25 * seconds,
            "loss": 9.0 - number,
            "timestamp_seconds": 100.0 + 4 * number,
        }
        for number, seconds in ((1, 2.0), (2, 1.0), (3, 0.5))
    ]
    found = scale.figures(reports, began=90.0)
    assert (found["steps"], found["batch"], found["to_first_step_seconds"]) == (6, 10, 10.0)
    assert (found["images_per_second"], found["step_seconds"], found["wait_share"]) == (10.0, 1.0, 0.25)
    assert (found["least_step_seconds"], found["most_step_seconds"]) == (0.5, 2.0)
    assert (found["first_loss"], found["last_loss"]) == (8.0, 6.0)


def test_an_opening_that_takes_too_long_is_said_to() -> None:
    slow = [
        {"seconds": seconds, "cpu_seconds": 0.9, "before_bytes": 1e6, "after_bytes": 3e6} for seconds in (1.0, 2.5, 2.1)
    ]
    rows = list(rows_of_opening(slow))
    assert rows[0] == ("opening, median of 3 processes", "2.10 s (1.00 to 2.50), **not** under 2 s; 0.90 s of a core")
    assert rows[1][1] == "3 MB, 1 MB before it"


@pytest.mark.processes
def test_a_training_that_fails_names_its_log(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"ended with exit code 3: see .*run\.log"):
        train({"data.train": "missing.rec"}, tmp_path / "run", ranks=1)
    assert "missing.rec" in (tmp_path / "run.log").read_text()
