"""A checkpoint in arcface_torch's files: their training goes on from it, and importing it again gives it back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from simulation import on_ranks
from test_taking_up import error, origin_of, state_of, trained
from their_training import BATCH, CLASSES, DIM, RATE, TOTAL_STEPS, TheirTraining
from torch import Tensor, nn

from partial_fc import World
from partial_fc.checkpoint.arcface_torch import training_at, write_checkpoint
from partial_fc.checkpoint.arcface_torch_optimizer import Course, Polynomial, course_of_run
from partial_fc.checkpoint.exporting import Export, network_to_export, write_folder
from partial_fc.checkpoint.layout import CheckpointFolder, latest_checkpoint
from partial_fc.checkpoint.loading import load_training_state
from partial_fc.checkpoint.saving import Saver
from partial_fc.checkpoint.taking_up import take_up
from partial_fc.checkpoint.training_state import TrainingState

ROW_RATE, STEPS = 0.1 / (BATCH * 36), 4


def export_of(folder: Path, course: Course | None, *, epoch: int = 2, scale: float = float(BATCH)) -> Export:
    checkpoint = CheckpointFolder(folder)
    network, backbone = network_to_export(checkpoint)
    return Export(checkpoint, checkpoint.manifest(), network, backbone, epoch, course, scale)


def course_at(step: int) -> Course:
    """That of a run of ours with the options of ``TheirTraining``, nothing decayed."""
    options = {"momentum": 0.9, "weight_decay": 0.0}
    rows = {"lr": BATCH * ROW_RATE, **options}
    return course_of_run({"lr": RATE, **options}, rows, Polynomial(step, TOTAL_STEPS, 0, 1.0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A checkpoint of a run of ours on 2 ranks, and the losses of the steps that followed."""
    folder = tmp_path_factory.mktemp("ours")

    def run(world: World) -> list[float]:
        state = new_state(world)
        trained(state, range(STEPS))
        Saver(folder, state, {}, in_background=False).save(STEPS)
        return trained(state, range(STEPS, 2 * STEPS))

    losses = on_ranks(2, run)[0]
    return latest_checkpoint(folder), losses


def new_state(world: World) -> TrainingState:
    state = state_of("sgd", world, row_rate=ROW_RATE)
    state.optimizer.param_groups[0]["weight_decay"] = 0.0
    return state


def test_their_training_goes_on_from_it_with_our_losses(tmp_path: Path, saved: tuple[Path, list[float]]) -> None:
    folder, losses = saved
    write_folder(export_of(folder, course_at(STEPS)), tmp_path / "there", 2)
    theirs = TheirTraining(2)
    new = TheirTraining(2)
    theirs.load(tmp_path / "there")
    found = torch.tensor(theirs.train(STEPS))
    # Rows there gain length by each step, which slows them down: second order in a step.
    torch.testing.assert_close(found[0], torch.tensor(losses[0]), rtol=1e-5, atol=0)
    assert error(found, torch.tensor(losses)) < 2e-3
    new.load(tmp_path / "there")
    new.optimizer.state.clear()
    assert error(torch.tensor(new.train(STEPS)), torch.tensor(losses)) > 0.02, "without the momentum"


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_run_of_ours_comes_back_as_it_was(tmp_path: Path, saved: tuple[Path, list[float]], ranks: int) -> None:
    folder, _ = saved
    write_folder(export_of(folder, course_at(STEPS)), tmp_path / "there", ranks)
    read = training_at(tmp_path / "there")
    assert (read.progress.epoch, read.progress.step, len(read.shards)) == (2, STEPS, ranks)
    back = write_checkpoint(read, tmp_path / "back", {})

    def states(world: World) -> tuple[TrainingState, TrainingState]:
        ours, again = new_state(world), new_state(world)
        load_training_state(folder, ours, seed=0)
        take_up(back, again, origin_of(back), seed=0, batch_size=BATCH)
        return ours, again

    for ours, again in on_ranks(2, states):
        assert_same(again.backbone.state_dict(), ours.backbone.state_dict(), buffers=ranks == 2)
        assert_same(again.shared(), ours.shared())
        for name, tensor in ours.of_rank().items():
            if name.startswith("row."):
                torch.testing.assert_close(again.of_rank()[name], tensor, rtol=3e-7, atol=1e-9, msg=name)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], *, buffers: bool = True) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if buffers or "running_" not in name:
            assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_import_goes_back_bitwise(tmp_path: Path, optimizer: str) -> None:
    training = TheirTraining(3, optimizer)
    training.train(1)
    training.save(tmp_path / "there")
    folder = write_checkpoint(training_at(tmp_path / "there"), tmp_path / "here", {})
    origin = origin_of(folder)
    write_folder(export_of(folder, origin.course, epoch=origin.epoch, scale=1.0), tmp_path / "back", 3)
    for rank in range(3):
        first, again = (read(tmp_path / name / f"checkpoint_gpu_{rank}.pt") for name in ("there", "back"))
        assert_equal(flat(again), flat(first))
    model = read(tmp_path / "back" / "model.pt")
    assert_same(model, read(tmp_path / "there" / "checkpoint_gpu_0.pt")["state_dict_backbone"])


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(file, weights_only=True)
    return content


def flat(tree: Any, prefix: str = "") -> dict[str, object]:
    """Every tensor and number of a file by its place."""
    if isinstance(tree, list | tuple):
        tree = dict(enumerate(tree))
    if isinstance(tree, dict):
        return {key: value for name, inner in tree.items() for key, value in flat(inner, f"{prefix}/{name}").items()}
    return {prefix: tree}


def assert_equal(found: dict[str, object], expected: dict[str, object]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        other = found[name]
        is_same = (
            torch.equal(other, value) if isinstance(other, Tensor) and isinstance(value, Tensor) else other == value
        )
        assert is_same, name


def test_the_folder_is_whole_and_never_overwritten(tmp_path: Path, saved: tuple[Path, list[float]]) -> None:
    export = export_of(saved[0], None)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "left.pt").touch()
    write_folder(export, tmp_path / "out", 4)
    names = [f"checkpoint_gpu_{rank}.pt" for rank in range(4)]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [*names, "model.pt"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    parts = [read(tmp_path / "out" / name) for name in names]
    assert set(parts[0]) == {"epoch", "global_step", "state_dict_backbone", "state_dict_softmax_fc"}
    assert [len(part["state_dict_softmax_fc"]["weight"]) for part in parts] == [6, 6, 6, 5]
    before = (tmp_path / "out" / "model.pt").read_bytes()
    with pytest.raises(FileExistsError, match="out is there already: give --out another folder"):
        write_folder(export, tmp_path / "out", 1)
    assert (tmp_path / "out" / "model.pt").read_bytes() == before


def test_a_backbone_alone_is_model_pt_alone(tmp_path: Path) -> None:
    training = TheirTraining(1)
    torch.save(training.backbone.state_dict(), tmp_path / "backbone.pth")
    folder = write_checkpoint(training_at(tmp_path), tmp_path / "here", {})
    write_folder(export_of(folder, None), tmp_path / "out", 0)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["model.pt"]
    assert_same(read(tmp_path / "out" / "model.pt"), training.backbone.state_dict())


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    tmp_path: Path, saved: tuple[Path, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    export, out = export_of(saved[0], None), tmp_path / "out"
    for ranks in (0, CLASSES + 1):
        with pytest.raises(
            ValueError, match=f"{ranks} ranks for 23 classes: expected at least 1, and a class for each"
        ):
            write_folder(export, out, ranks)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
        with pytest.raises(OSError, match=r"no space in .*: the export needs up to [\d,]+ bytes, and 1,000 are free"):
            write_folder(export, out, 1)
    copy = tmp_path / "copy"
    shutil.copytree(saved[0], copy)
    (copy / "shared.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"shared\.safetensors has 5 bytes, .*: take another checkpoint"):
        write_folder(export_of(copy, None), out, 1)
    torch.save(nn.Linear(3, DIM).state_dict(), copy / "backbone.pt")
    with pytest.raises(ValueError, match=r"backbone\.pt is no network of arcface_torch: only its own can be loaded"):
        network_to_export(CheckpointFolder(copy))
    assert not out.exists()
    assert not (tmp_path / "out.partial").exists()


def test_the_rate_of_the_next_step_is_theirs_at_that_step() -> None:
    total, warmup = 20, 4
    for power in (1.0, 2.0):
        factors = [Polynomial(step, total, warmup, power).factor() for step in range(total + 1)]
        assert factors[:5] == [1.0, 0.25, 0.5, 0.75, 1.0]
        assert factors[12] == pytest.approx(0.5**power)
        assert factors[-1] == 0.0
