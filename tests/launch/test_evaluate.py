"""An evaluation of a run's folder: it says what training said, whatever the number of ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.verification_bin.writer import write_bin
from launch import evaluate, train
from launch.config.loading import load_config
from launch.evaluation import embeddings
from partial_fc.checkpoint.layout import latest_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run_dir(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an epoch, in bfloat16, as by default."""
    folder = tmp_path_factory.mktemp("run")
    content = tiny.tree(data, folder / "run", backbone={"autocast": "bfloat16"})
    train.run(load_config(tiny.write_config(folder / "config.yaml", content)))
    return folder / "run"


def figures(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return found


def evaluated(run_dir: Path, out: Path, *words: object) -> dict[str, Any]:
    assert evaluate.main([str(run_dir), "--out", str(out), *map(str, words)]) == 0
    return figures(out)


@pytest.mark.parametrize("num_images", [0, 1, 127, 128, 129, 1000])
@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_ranks_share_out_whole_batches(num_images: int, size: int) -> None:
    shares = [embeddings.image_share(num_images, rank, size) for rank in range(size)]
    assert [image for share in shares for image in share] == list(range(num_images))
    assert all(share.start % embeddings.EMBED_BATCH == 0 for share in shares if len(share))
    batches = [-(-len(share) // embeddings.EMBED_BATCH) for share in shares]
    assert max(batches) - min(batches) <= 1


def test_an_evaluation_repeats_the_figures_of_the_runs_end(run_dir: Path, tmp_path: Path) -> None:
    assert evaluated(run_dir, tmp_path / "again") == figures(run_dir)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["evaluation.json", "report.html"]
    assert "svg" in (tmp_path / "again" / "report.html").read_text()


def test_a_run_whose_folder_was_moved_evaluates_as_before(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("config.yaml", "metrics.jsonl", "checkpoints"):
        (moved / name).symlink_to(run_dir / name)
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(["moved"]) == 0
    assert figures(moved) == figures(run_dir)
    assert "The run</h2>" in (moved / "report.html").read_text(), "the curves come from the folder named"


def test_a_run_of_relative_paths_is_evaluated_from_any_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").symlink_to(data)
    tree = tiny.tree(Path("here"), Path("run [red]"), schedule={"epochs": 0.2})
    assert train.main([str(tiny.write_config(tmp_path / "config.yaml", tree))]) == 0
    assert "\nrun [red]/report.html  open this one" in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    evaluated(Path("..") / "run [red]", Path("out"))
    assert figures(Path("out")) == figures(tmp_path / "run [red]")
    assert list((tmp_path / "elsewhere").iterdir()) == [tmp_path / "elsewhere" / "out"]


def test_a_value_of_the_runs_config_can_be_overridden(
    data: Path, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_training = evaluated(run_dir, tmp_path, "--set", f"data.evaluate={data / 'train'}")
    assert on_training["counts"]["images"] == 96
    assert evaluate.main([str(run_dir), "--set", "data.evaluat=x"]) == 2
    assert "unknown key 'evaluat', the nearest is 'evaluate'" in capsys.readouterr().err


def with_batches_of_40(*words: str) -> None:
    """Two batches for the 80 images: of three ranks one has none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings, "EMBED_BATCH", 40)
        assert evaluate.main(words) == 0


@pytest.mark.processes
def test_several_ranks_find_the_figures_of_one(data: Path, run_dir: Path, tmp_path: Path) -> None:
    """Those of the held-out images, and those of pairs of them: neighbours, or 40 images apart, by turns."""
    held_out = RecordSource(data / "heldout" / "train.rec")
    pairs = [(first, (first + 40 if first % 4 else first + 1) % 80) for first in range(0, 80, 2)]
    images = (held_out.read(sample).tobytes() for pair in pairs for sample in pair)
    write_bin(tmp_path / "some.bin", images, [held_out.label(a) == held_out.label(b) for a, b in pairs])
    for name, words in {"evaluation.json": [], "evaluation-some.json": ["--pairs", str(tmp_path / "some.bin")]}.items():
        with_batches_of_40(str(run_dir), *words, "--out", str(tmp_path / "one"))
        tiny.processes(3, with_batches_of_40, str(run_dir), *words, "--out", str(tmp_path / "three"))
        assert (tmp_path / "three" / name).read_text() == (tmp_path / "one" / name).read_text()
    assert json.loads((tmp_path / "one" / "evaluation-some.json").read_text())["counts"]["images"] == 80


def test_other_images_other_weights_and_a_mirrored_view_are_other_figures(
    data: Path, run_dir: Path, tmp_path: Path
) -> None:
    on_training = evaluated(run_dir, tmp_path / "data", "--data", data / "train")
    assert on_training["counts"]["images"] == 96
    torch.manual_seed(7)
    torch.save(tiny.backbone(load_config(run_dir / "config.yaml")).state_dict(), tmp_path / "random.pt")
    random = evaluated(run_dir, tmp_path / "weights", "--weights", tmp_path / "random.pt")
    flipped = evaluated(run_dir, tmp_path / "flip", "--flip")
    assert len({found["eer"] for found in (figures(run_dir), on_training, random, flipped)}) == 4


def test_the_weights_a_run_started_from_are_no_longer_needed(data: Path, run_dir: Path, tmp_path: Path) -> None:
    config = load_config(run_dir / "config.yaml")
    start = tmp_path / "start.pt"
    torch.save(tiny.backbone(config, latest_checkpoint(run_dir / "checkpoints")).state_dict(), start)
    content = tiny.tree(data, tmp_path / "run", backbone={"weights": str(start)}, schedule={"epochs": 0.1})
    train.run(load_config(tiny.write_config(tmp_path / "config.yaml", content)))
    start.unlink()
    assert evaluated(tmp_path / "run", tmp_path / "out") == figures(tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--data", "none.rec"], 3, "none.rec is missing"),
        (["--weights", "none.pt"], 3, "none.pt is missing"),
        (["--weights", "config.yaml"], 3, "config.yaml cannot be read as tensors"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_an_exit_code(
    run_dir: Path,
    words: list[str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(run_dir)
    assert evaluate.main([".", *words]) == code
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1


def test_a_folder_that_holds_no_run_is_refused(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(tmp_path)]) == 2
    assert "cannot read the config" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text((run_dir / "config.yaml").read_text())
    assert evaluate.main([str(tmp_path)]) == 3
    assert "no checkpoint in" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("data: {train: train.rec}\n")
    assert evaluate.main([str(tmp_path)]) == 2
    assert "names no data.evaluate: give --data PATH" in capsys.readouterr().err
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "model.pt").touch()
    for path in (tmp_path, tmp_path / "model.pt"):
        assert evaluate.main([str(path)]) == 2
        assert f"{path} is no run: partial-fc import arcface_torch {path} --out RUN" in capsys.readouterr().err
