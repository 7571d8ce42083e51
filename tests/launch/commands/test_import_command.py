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
    state = backbone("r18", width=8, embedding_dim=16, input_size=tiny.SIZE).state_dict()
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
        f"{training}  r18 of width 8 for images of 32 pixels, with embeddings of 16 dimensions; "
        "12 classes of 2 ranks; at epoch 3, step 999"
    )
    assert said[1].endswith("the optimizer's state will be new: there is no state_optimizer")
    assert len(said) == 3
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


@pytest.fixture
def with_state(training: Path) -> Path:
    """The same folder with the state of SGD after the first of two epochs, 6 steps."""
    for rank in range(2):
        content = torch.load(training / f"checkpoint_gpu_{rank}.pt", weights_only=True)
        network = backbone("r18", width=8, embedding_dim=16, input_size=tiny.SIZE)
        rows = torch.nn.Parameter(content["state_dict_softmax_fc"]["weight"])
        groups = [{"params": list(network.parameters())}, {"params": [rows]}]
        optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=5e-4)
        scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=12)
        for parameter in (*network.parameters(), rows):
            parameter.grad = 1e-3 * torch.ones_like(parameter) if parameter.requires_grad else None
        optimizer.step()
        scheduler.last_epoch = 6
        state = {"state_optimizer": optimizer.state_dict(), "state_lr_scheduler": scheduler.state_dict()}
        torch.save({**content, "epoch": 1, "global_step": 6, **state}, training / f"checkpoint_gpu_{rank}.pt")
    return training


def test_an_imported_training_goes_on_at_its_step_and_is_exported(
    with_state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, ours = tiny.write_data(tmp_path / "data"), tmp_path / "run", tmp_path / "ours.yaml"
    assert cli.main(["import", "arcface_torch", str(with_state), "--out", str(run)]) == 0
    job = {"rec": str(data / "train"), "network": "r18", "embedding_size": 16, "batch_size": 16, "lr": 0.01}
    lines = [f"config.{key} = {value!r}" for key, value in {**job, "num_epoch": 2, "frequent": 2}.items()]
    (tmp_path / "job.py").write_text("\n".join(lines))
    words = ["import", "arcface_torch-config", str(tmp_path / "job.py"), "--out", str(ours), "--gpus", "1"]
    assert cli.main([*words, "--run", str(run)]) == 0
    sizes = ("backbone.width=8", f"data.image_size={tiny.SIZE}", "backbone.compile=false", "report.prometheus=false")
    start = ["train", str(ours), "--nproc", "1", *(word for each in sizes for word in ("--set", each))]

    capsys.readouterr()
    others = ("optimizer.learning_rate=0.02", "optimizer.nesterov=true")
    assert cli.main([*start, *(word for each in others for word in ("--set", each))]) == 2
    assert (
        "holds a run at step 6 that was begun otherwise: optimizer.learning_rate was 0.01 and is 0.02; "
        "optimizer.nesterov was False and is True. Give"
    ) in capsys.readouterr().err
    assert cli.main(start) == 0
    said = capsys.readouterr().out
    assert (
        f"goes on from {with_state} at epoch 1, step 6. Taken over: the backbone, its sgd momentum, 12 class rows, "
        "their momentum. New: random generators, the order of the images\n"
    ) in said
    rate = load_config(ours).classifier.learning_rate
    assert f"classifier.learning_rate is {rate:.4g}; {rate:.4g} keeps the pace of the class rows there" in said
    assert "the schedule there ended at step 12\n" in said
    assert "12 steps of 16 on 1 x cpu, going on after step 6" in said
    assert latest_checkpoint(run / "checkpoints").name == "step-00000012"
    assert cli.main(["train", str(ours), *start[2:]]) == 0, "and it is a run of ours from then on"

    export = ["checkpoint", "export", str(run), "--out", str(tmp_path / "back"), "--ranks", "3"]
    capsys.readouterr()
    assert cli.main(export) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("r18 of width 8 for images of 32 pixels")
    files = "model.pt and checkpoint_gpu_0.pt to _2.pt with sgd's state"
    assert told[1:] == [f"{tmp_path / 'back'}  {files}, at epoch 2, step 12"]
    content = torch.load(tmp_path / "back" / "checkpoint_gpu_2.pt", weights_only=True)
    groups = content["state_optimizer"]["param_groups"]
    assert (groups[0]["initial_lr"], groups[0]["momentum"], groups[0]["nesterov"]) == (0.01, 0.9, False)
    assert groups[1]["initial_lr"] == pytest.approx(16 * rate)
    assert content["state_lr_scheduler"]["total_iters"] == content["state_lr_scheduler"]["last_epoch"] == 12
    assert cli.main(export) == 3
    assert "back is there already" in capsys.readouterr().err
    assert cli.main([*words[:-4], "--out", str(tmp_path / "other.yaml"), "--run", str(tmp_path / "back")]) == 3


def test_a_folder_that_is_in_use_is_left_alone(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert cli.main(["import", "arcface_torch", str(training), "--out", str(tmp_path / "run")]) == 3
    assert "run is there already: give --out another folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_a_network_without_class_rows_is_offered_as_a_beginning(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = torch.load(training / "checkpoint_gpu_0.pt", weights_only=True)["state_dict_backbone"]
    torch.save(theirs, tmp_path / "model.pt")
    assert cli.main(["import", "arcface_torch", str(tmp_path / "model.pt"), "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "no class rows" in said
    assert f"train OUR.yaml --set backbone.weights={tmp_path / 'run'} to begin with it" in said
    assert "to go on" not in said


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
    assert cli.main([words[0], words[1], str(tmp_path / "job"), *words[3:], "--gpus", "4"]) == 0, "as they name it"
    assert f"to be set before training: {out}: 'data.train' is missing" in capsys.readouterr().out
    config = load_config(out, ["data.train=data"])
    assert (config.backbone.name, config.schedule.batch_size) == ("r100", 512)

    assert cli.main(words) == 3
    assert "ours.yaml is there already" in capsys.readouterr().err
    assert cli.main([*words, "--gpus", "0"]) == 2
