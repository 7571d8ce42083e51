"""What a run leaves on disk: written by any number of ranks, read by any other; ranks are threads."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from simulation import on_ranks
from torch import Tensor, nn

from partial_fc import (
    AdaCos,
    CosineSoftmax,
    Objective,
    P2SGrad,
    RowAdamW,
    RowOptimizer,
    RowSGD,
    ShardedClassifier,
    World,
)
from partial_fc.backbones import backbone as new_backbone
from partial_fc.checkpoint import layout
from partial_fc.checkpoint import writing as writing_module
from partial_fc.checkpoint.layout import CheckpointFolder, latest_checkpoint, whole_checkpoints
from partial_fc.checkpoint.loading import load_backbone, load_training_state
from partial_fc.checkpoint.saving import Saver
from partial_fc.checkpoint.tidying import remove_unfinished, set_aside
from partial_fc.checkpoint.training_state import TrainingState
from partial_fc.checkpoint.writing import Saved

C, D, N = 11, 6, 12
FACTS = {"seed": 3}
LOSSES: dict[str, Callable[[], Objective]] = {"adacos": lambda: AdaCos(C), "p2sgrad": P2SGrad}
ROWS: dict[str, Callable[[], RowOptimizer]] = {
    "sgd": lambda: RowSGD(0.05, 0.9),
    "adamw": lambda: RowAdamW(0.01, state_dtype=torch.bfloat16),
}


class Training:
    """A network with BatchNorm, its head and both optimizers; the global batches are the same for every world."""

    def __init__(
        self, world: World, loss: str = "adacos", rows: str = "sgd", seed: int = 0, num_classes: int = C
    ) -> None:
        self.world = world
        self.network = nn.Sequential(nn.Linear(8, 10), nn.BatchNorm1d(10), nn.Linear(10, D))
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.network.parameters():
            nn.init.normal_(parameter, 0.0, 0.3, generator)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.05, momentum=0.9)
        objective = LOSSES[loss]() if num_classes == C else AdaCos(num_classes)
        self.head = ShardedClassifier(num_classes, D, objective, world=world, row_optimizer=ROWS[rows](), seed=seed)
        self.state = TrainingState(self.network, self.head, self.optimizer, world)

    def steps(self, first: int, stop: int) -> list[float]:
        losses = []
        for step in range(first, stop):
            generator = torch.Generator().manual_seed(step)
            images_N, labels_N = torch.randn(N, 8, generator=generator), torch.randint(C, (N,), generator=generator)
            images_n, labels_n = (rows.tensor_split(self.world.size)[self.world.rank] for rows in (images_N, labels_N))
            loss = self.head(self.network(images_n), labels_n)
            loss.backward()
            for parameter in self.network.parameters():
                assert parameter.grad is not None
                parameter.grad = self.world.all_sum(parameter.grad.clone())
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    def tensors(self) -> dict[str, Tensor]:
        """Copies of all that a checkpoint is to hold."""
        named = {**self.state.of_rank(), **self.state.shared(), **dict(self.network.named_parameters())}
        return {name: tensor.detach().clone() for name, tensor in named.items() if not name.startswith("rng.")}


def saver(folder: Path, training: Training, **options: Any) -> Saver:
    return Saver(folder, training.state, FACTS, **options)


def run_and_save(folder: Path, world: World, steps: int = 3, loss: str = "adacos", rows: str = "sgd") -> Training:
    training = Training(world, loss, rows)
    training.steps(0, steps)
    saving = saver(folder, training)
    saving.save(steps)
    saving.wait()
    return training


def taken_up(folder: Path, world: World, loss: str = "adacos", rows: str = "sgd") -> tuple[Training, int]:
    training = Training(world, loss, rows)
    with torch.no_grad():
        for parameter in (*training.network.parameters(), training.head.weight):
            parameter.mul_(-1.5)  # whatever the new process began with
    return training, load_training_state(latest_checkpoint(folder), training.state, seed=0).step


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_on_as_many_ranks_a_run_goes_on_bitwise_as_if_it_had_never_stopped(
    tmp_path: Path, size: int, loss: str, rows: str
) -> None:
    def straight(world: World) -> tuple[list[float], dict[str, Tensor]]:
        training = run_and_save(tmp_path, world, 3, loss, rows)
        return training.steps(3, 7), training.tensors()

    def resumed(world: World) -> tuple[list[float], dict[str, Tensor]]:
        training, step = taken_up(tmp_path, world, loss, rows)
        return training.steps(step, 7), training.tensors()

    expected_of_ranks = on_ranks(size, straight)
    for (losses, tensors), (expected_losses, expected) in zip(on_ranks(size, resumed), expected_of_ranks, strict=True):
        assert losses == expected_losses
        assert tensors.keys() == expected.keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("written_by", [1, 2, 3, 4])
@pytest.mark.parametrize("read_by", [1, 2, 3, 4, 13])
def test_rows_and_their_state_go_to_any_other_number_of_ranks_unchanged(
    tmp_path: Path, written_by: int, read_by: int
) -> None:
    written = on_ranks(written_by, lambda world: run_and_save(tmp_path, world).tensors())
    read = on_ranks(read_by, lambda world: taken_up(tmp_path, world)[0].tensors())
    for name in ("row.weight", "row.row_optimizer.momentum_cD"):
        assert torch.equal(torch.cat([part[name] for part in read]), torch.cat([part[name] for part in written]))
    for part in read:
        for name in written[0]:
            if not name.startswith(("row.", "buffer.")):
                assert torch.equal(part[name], written[0][name]), name
    mean = torch.stack([part["buffer.1.running_mean"] for part in written]).mean(dim=0)
    for rank, part in enumerate(read):
        expected = written[rank]["buffer.1.running_mean"] if read_by == written_by else mean
        torch.testing.assert_close(part["buffer.1.running_mean"], expected)


@pytest.mark.parametrize(("written_by", "read_by"), [(1, 2), (2, 1), (3, 2), (2, 4)])
def test_on_another_number_of_ranks_the_losses_follow_but_for_rounding(
    tmp_path: Path, written_by: int, read_by: int
) -> None:
    """BatchNorm of parts of a batch differs between numbers of ranks, so this network is told to use its statistics."""

    def steps(world: World, resume: bool) -> list[float]:
        training = Training(world)
        training.network.eval()
        first = load_training_state(latest_checkpoint(tmp_path), training.state, seed=0).step if resume else 0
        losses = training.steps(first, 7 if resume else 3)
        if not resume:
            writing = saver(tmp_path, training)
            writing.save(3)
            writing.wait()
            losses = training.steps(3, 7)
        return losses

    straight = on_ranks(written_by, lambda world: steps(world, False))[0]
    assert on_ranks(read_by, lambda world: steps(world, True))[0] == pytest.approx(straight, rel=1e-5)


def test_what_fits_no_checkpoint_is_refused(tmp_path: Path) -> None:
    run_and_save(tmp_path, World())
    folder = latest_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="holds a head of 11 classes x 6 dimensions: expected 12 x 6"):
        load_training_state(folder, Training(World(), num_classes=12).state, 0)
    other = Training(World())
    other.head.objective = CosineSoftmax(16.0)
    with pytest.raises(ValueError, match="another objective"):
        load_training_state(folder, other.state, 0)


def test_a_checkpoint_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's own name exists only after the last file has been written."""
    rename = Path.rename
    files = {"backbone.pt", "shared.safetensors", "manifest.json"}
    files |= {f"rank-0000{rank}-of-00002.safetensors" for rank in range(2)}

    def checked(path: Path, target: Path) -> Path:
        assert {file.name for file in path.iterdir()} == files
        assert CheckpointFolder(path).problems() == []
        assert not target.exists()
        assert whole_checkpoints(tmp_path) == []
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", checked)
    on_ranks(2, lambda world: run_and_save(tmp_path, world))
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000003", "latest"}
    assert (tmp_path / "latest").resolve() == latest_checkpoint(tmp_path)
    manifest = CheckpointFolder(latest_checkpoint(tmp_path)).manifest()
    assert (manifest.step, manifest.world_size, manifest.classes) == (3, 2, [(0, 6), (6, 11)])
    assert (manifest.num_classes, manifest.embedding_dim, manifest.head_steps, manifest.facts) == (C, D, 3, FACTS)


def test_a_save_that_was_killed_is_no_checkpoint_and_is_written_anew(tmp_path: Path) -> None:
    training = run_and_save(tmp_path, World())
    torn = tmp_path / "step-00000006.partial"
    torn.mkdir()
    (torn / "rank-00007-of-00009.safetensors").write_bytes(b"left over")
    (torn / "rank-00000.json").write_text("{}")
    (tmp_path / "step-00000007").mkdir()  # no manifest: what a removal left
    assert latest_checkpoint(tmp_path).name == "step-00000003"
    writing = saver(tmp_path, training)
    writing.save(6)
    writing.wait()
    assert CheckpointFolder(latest_checkpoint(tmp_path)).problems() == []
    assert not torn.exists()
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000003", "step-00000006", "latest"}


def test_the_last_checkpoints_and_every_so_many_steps_are_kept(tmp_path: Path) -> None:
    training = Training(World())
    said: list[Saved] = []
    writing = saver(tmp_path, training, keep_last=2, keep_every_steps=20, on_saved=said.append)
    for step in range(10, 80, 10):
        writing.save(step)
    writing.wait()
    assert [folder.path.name for folder in whole_checkpoints(tmp_path)] == [
        f"step-000000{step}" for step in (20, 40, 60, 70)
    ]
    assert [saved.step for saved in said] == list(range(10, 80, 10))
    assert all(saved.size_bytes > 0 and 0 < saved.pause_seconds < 5 for saved in said)


def test_what_cannot_be_removed_is_left_and_what_is_no_checkpoint_is_let_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writing = saver(tmp_path, Training(World()), keep_last=1)
    writing.save(10)
    writing.wait()
    shutil.copytree(tmp_path / "step-00000010", tmp_path / "step-00000010-mine")
    (tmp_path / "step-notes.txt").write_text("mine")
    remove, is_open = shutil.rmtree, tmp_path / "step-00000010"

    def refused(path: Path, *words: Any, **more: Any) -> None:
        if path == is_open:
            raise OSError(errno.EBUSY, "a file is open")
        remove(path, *words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refused)
        writing.save(20)
        writing.wait()
    assert "step-00000010 could not be removed: " in caplog.text
    assert [folder.step for folder in whole_checkpoints(tmp_path)] == [20]
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("step-00000020", "latest", "step-00000010-mine", "step-notes.txt")
    }


def test_what_is_set_aside_counts_no_more_and_nothing_is_lost(tmp_path: Path) -> None:
    writing = saver(tmp_path, Training(World()))
    for step in (10, 20, 20):
        writing.save(step)
        writing.wait()
        layout.name_best(tmp_path, 20)
        if step == 20:
            set_aside(CheckpointFolder(tmp_path / "step-00000020"))
    assert [folder.step for folder in whole_checkpoints(tmp_path)] == [10]
    assert (tmp_path / "latest").resolve().name == "step-00000010"
    assert not (tmp_path / "best").is_symlink()
    assert all((tmp_path / f"step-00000020.damaged{more}" / "manifest.json").is_file() for more in ("", "-2"))


def test_a_folder_that_cannot_be_made_is_said_on_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "step-00000003.partial").write_text("in the way")

    def refused(world: World) -> str:
        with pytest.raises(OSError, match=r"step-00000003\.partial") as error:
            saver(tmp_path, Training(world)).save(3)
        return str(error.value)

    said = on_ranks(2, refused)
    assert "File exists" in said[0]
    assert "could not be made by rank 0" in said[1]


def test_a_buffer_that_is_no_part_of_a_networks_state_hinders_no_resume(tmp_path: Path) -> None:
    training, again = Training(World()), Training(World())
    for each in (training, again):
        each.network.register_buffer("table", torch.ones(6), persistent=False)
    writing = saver(tmp_path, training)
    writing.save(1)
    writing.wait()
    assert load_training_state(latest_checkpoint(tmp_path), again.state, seed=0).step == 1


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved is the state at the save, whatever the steps that follow change."""
    training, may_write = Training(World()), threading.Event()
    training.steps(0, 3)
    expected = training.tensors()
    write_tensors = writing_module.write_tensors

    def late(path: Path, tensors: dict[str, Tensor]) -> Any:
        assert may_write.wait(30)
        return write_tensors(path, tensors)

    monkeypatch.setattr(writing_module, "write_tensors", late)
    writing = saver(tmp_path, training)
    writing.save(3)
    training.steps(3, 6)
    may_write.set()
    writing.wait()
    found = taken_up(tmp_path, World())[0].tensors()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("place", ["write_tensors", "write_whole", "commit"])
def test_a_save_that_fails_on_one_rank_ends_all_and_leaves_the_one_before(
    tmp_path: Path, rank: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "commit" and rank == 1:
        pytest.skip("rank 0 commits")
    on_ranks(2, lambda world: run_and_save(tmp_path, world))
    module: Any = writing_module if place == "write_tensors" else layout
    real = getattr(module, place)

    def failing(*arguments: Any) -> Any:
        of_rank = any(f"rank-0000{rank}" in str(argument) for argument in arguments)
        if of_rank or place == "commit":
            raise OSError(errno.ENOSPC, "No space left on device", "FILE")
        return real(*arguments)

    monkeypatch.setattr(module, place, failing)

    def refused(world: World) -> str:
        training, step = taken_up(tmp_path, world)
        writing = saver(tmp_path, training)
        writing.save(step + 1)
        with pytest.raises(OSError, match=r"No space|on another rank|by rank 0") as error:
            writing.wait()
        return str(error.value)

    said = on_ranks(2, refused)
    assert "No space left" in said[rank]
    assert [folder.path.name for folder in whole_checkpoints(tmp_path)] == ["step-00000003"]


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_and_save(tmp_path, World())
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"no space for .*step-00000004: [\d,]+ bytes are needed and 1,000 are free"):
        saver(tmp_path, Training(World())).save(4)
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000003", "latest"}


@pytest.mark.parametrize("file", ["backbone.pt", "shared.safetensors", "rank-00001-of-00002.safetensors"])
@pytest.mark.parametrize("damage", ["bit", "cut", "missing"])
def test_a_damaged_file_is_named(tmp_path: Path, file: str, damage: str) -> None:
    on_ranks(2, lambda world: run_and_save(tmp_path, world))
    path = latest_checkpoint(tmp_path) / file
    whole = bytearray(path.read_bytes())
    whole[-5] ^= 1
    path.write_bytes(whole if damage == "bit" else whole[:-7])
    if damage == "missing":
        path.unlink()
    word = {"bit": "CRC-32", "cut": "bytes, and the manifest says", "missing": "is missing"}[damage]
    with pytest.raises(ValueError, match=rf"{file}.*{word}"):
        taken_up(tmp_path, World())
    (problem,) = CheckpointFolder(latest_checkpoint(tmp_path)).problems()
    assert file in problem


def test_a_manifest_of_another_version_or_none_at_all_is_refused(tmp_path: Path) -> None:
    run_and_save(tmp_path, World())
    folder = CheckpointFolder(latest_checkpoint(tmp_path))
    for text, word in (('{"version": 99}', "version 99"), ("[]", "no manifest"), ("{", "no manifest")):
        folder.manifest_file.write_text(text)
        with pytest.raises(ValueError, match=word):
            folder.manifest()


def test_the_backbones_file_is_a_plain_state_dict_under_arcface_torchs_keys(tmp_path: Path) -> None:
    network = new_backbone("r18", width=4, embedding_dim=16, input_size=16)
    head = ShardedClassifier(C, D, AdaCos(C), world=World())
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    writing = Saver(tmp_path, TrainingState(network, head, optimizer, World()), FACTS)
    writing.save(1)
    writing.wait()
    state = torch.load(tmp_path / "step-00000001" / "backbone.pt", weights_only=True)
    assert {"conv1.weight", "layer4.1.conv2.weight", "fc.weight", "features.running_var"} <= state.keys()
    other = new_backbone("r18", width=4, embedding_dim=16, input_size=16)
    load_backbone(tmp_path / "step-00000001", other)
    for name, value in other.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])
    load_backbone(tmp_path / "step-00000001" / "backbone.pt", other)
    with pytest.raises(ValueError, match="do not fit this backbone"):
        load_backbone(tmp_path / "step-00000001", new_backbone("r18", width=8, embedding_dim=16, input_size=16))


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("run-by-a-checkpoint",)


@pytest.mark.parametrize("damage", ["code", "cut", "empty", "noise"])
def test_weights_that_are_damaged_or_hold_code_are_refused(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "backbone.pt"
    torch.save({"weight": Payload() if damage == "code" else torch.ones(1000)}, file)
    whole = file.read_bytes()
    file.write_bytes({"code": whole, "cut": whole[: len(whole) // 2], "empty": b"", "noise": bytes(range(256))}[damage])
    with pytest.raises(ValueError, match=r"backbone\.pt cannot be read as tensors"):
        load_backbone(file, nn.Linear(1000, 1))
    assert not (tmp_path / "run-by-a-checkpoint").exists()
    with pytest.raises(FileNotFoundError, match="is missing"):
        load_backbone(tmp_path / "none.pt", nn.Linear(1, 1))


def test_weights_of_before_torch_1_6_load(tmp_path: Path) -> None:
    given = nn.Linear(3, 2)
    torch.save(given.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = nn.Linear(3, 2)
    load_backbone(tmp_path / "old.pth", found)
    assert torch.equal(found.weight, given.weight)
