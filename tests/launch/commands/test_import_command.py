"""``partial-fc import``: a run folder that evaluate and train take, and a config in YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity

from launch import cli
from launch.config.loading import load_config
from partial_fc.backbones import backbone
from partial_fc.checkpoint.layout import latest_checkpoint


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A folder of arcface_torch's, of two ranks, for 12 classes and the images of ``tiny``."""
    folder = tmp_path / "work_dirs" / "r18"
    folder.mkdir(parents=True)
    state = backbone("r18", width=4, embedding_dim=16, input_size=tiny.SIZE).state_dict()
    for rank in range(2):
        content = {
            "epoch": 3,
            "global_step": 999,
            "state_dict_backbone": state,
            "state_dict_softmax_fc": {"weight": torch.randn(6, 16) * 0.01},
        }
        torch.save(content, folder / f"checkpoint_gpu_{rank}.pt")
    return folder


def test_an_imported_training_is_a_run_that_evaluate_and_train_take(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tiny.write_data(tmp_path / "data"), tmp_path / "run"
    assert cli.main(["import", "arcface_torch", str(training), "--out", str(run)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        f"{training}  r18 of width 4 for images of 32 pixels, with embeddings of 16 dimensions; "
        "12 classes of 2 ranks; at epoch 3, step 999"
    )
    assert len(said) == 2
    assert not (tmp_path / "run.partial").exists()
    assert load_config(run / "config.yaml").backbone.autocast == "float32"

    assert cli.main(["evaluate", str(run), "--data", str(data / "heldout"), "--nproc", "1"]) == 0
    assert (run / "evaluation.json").exists()

    config = tiny.write_config(tmp_path / "config.yaml", tiny.tree(data, tmp_path / "on", data={"evaluate": None}))
    started = ("--set", f"backbone.weights={run}", "--set", f"classifier.rows={run}")
    assert cli.main(["train", str(config), *started, "--set", "schedule.epochs=0.5", "--nproc", "1"]) == 0
    checkpoint = latest_checkpoint(tmp_path / "on" / "checkpoints")
    trained = torch.load(checkpoint / "backbone.pt", weights_only=True)
    theirs = torch.load(training / "checkpoint_gpu_0.pt", weights_only=True)["state_dict_backbone"]
    moved = (trained["conv1.weight"] - theirs["conv1.weight"]).norm() / theirs["conv1.weight"].norm()
    assert 0 < moved < 0.5, "the training began with those weights"
    rows_CD = load_file(checkpoint / "rank-00000-of-00001.safetensors")["row.weight"]
    parts = [torch.load(training / f"checkpoint_gpu_{rank}.pt", weights_only=True) for rank in range(2)]
    theirs_CD = torch.cat([part["state_dict_softmax_fc"]["weight"] for part in parts])
    cosines_C = cosine_similarity(rows_CD, theirs_CD)
    assert cosines_C.min() > 0.9, "and with those rows"
    assert cosines_C.max() < 1 - 1e-6


def test_a_folder_that_is_in_use_is_left_alone(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert cli.main(["import", "arcface_torch", str(training), "--out", str(tmp_path / "run")]) == 3
    assert "run is there already: give --out another folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_an_import_that_was_cut_off_can_be_given_again(training: Path, tmp_path: Path) -> None:
    (tmp_path / "run.partial" / "checkpoints" / "step-00000001").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    assert cli.main(["import", "arcface_torch", str(training), "--out", str(tmp_path / "run")]) == 0
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"step-00000999", "latest"}


def test_what_is_no_training_is_refused_before_anything_is_written(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (training / "checkpoint_gpu_0.pt").unlink()
    assert cli.main(["import", "arcface_torch", str(training), "--out", str(tmp_path / "run")]) == 3
    printed = capsys.readouterr().err
    assert "lacks checkpoint_gpu_0.pt" in printed
    assert printed.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["work_dirs"]


def test_a_config_becomes_yaml_that_says_what_is_still_to_be_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.py").write_text("config.network = 'r100'\nconfig.num_epoch = 20\n")
    out = tmp_path / "ours.yaml"
    words = ["import", "arcface_torch-config", str(tmp_path / "job.py"), "--out", str(out)]
    assert cli.main([*words, "--gpus", "4"]) == 0
    assert f"to be set before training: {out}: 'data.train' is missing" in capsys.readouterr().out
    config = load_config(out, ["data.train=data"])
    assert (config.backbone.name, config.schedule.batch_size) == ("r100", 512)

    assert cli.main(words) == 3
    assert "ours.yaml is there already" in capsys.readouterr().err
    assert cli.main([*words, "--gpus", "0"]) == 2
