"""What a run leaves on disk: written by any number of ranks, read by any other; ranks are threads."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from simulation import on_ranks
from torch import Tensor, nn

from partial_fc import AdaCos, CosineSoftmax, RowSGD, ShardedClassifier, World
from partial_fc.backbones import backbone as new_backbone
from partial_fc.checkpoint.loading import latest_checkpoint, load_backbone, load_head
from partial_fc.checkpoint.saving import average_buffers, save_checkpoint

C, D = 11, 6
FACTS = {"seed": 3}


def new_head(world: World, *, num_classes: int = C, momentum: float = 0.9, seed: int = 0) -> ShardedClassifier:
    return ShardedClassifier(
        num_classes, D, AdaCos(num_classes), world=world, row_optimizer=RowSGD(0.05, momentum), seed=seed
    )


def stepped(head: ShardedClassifier, world: World, steps: int = 3, first: int = 0) -> ShardedClassifier:
    """The head after some steps on a global batch that is the same for any number of ranks."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        embeddings_ND = torch.randn(8, D, generator=generator)
        labels_N = torch.randint(head.num_classes, (8,), generator=generator)
        mine = [rows.tensor_split(world.size)[world.rank] for rows in (embeddings_ND, labels_N)]
        head(mine[0].requires_grad_(), mine[1]).backward()
    return head


def saved(folder: Path, world: World, step: int = 5) -> dict[str, Tensor]:
    """A checkpoint of a trained head and a backbone; this rank's own rows and state."""
    head = stepped(new_head(world), world)
    save_checkpoint(folder, step, nn.Linear(2, 2), head, world, FACTS)
    return {name: value for name, value in head.state_dict().items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("written_by", [1, 2, 4])
@pytest.mark.parametrize("read_by", [1, 2, 3, 13])
def test_a_head_written_by_any_number_of_ranks_loads_on_any_other(
    tmp_path: Path, written_by: int, read_by: int
) -> None:
    written = on_ranks(written_by, lambda world: saved(tmp_path, world))

    def loaded(world: World) -> tuple[dict[str, Tensor], int]:
        head = new_head(world, seed=99)
        load_head(tmp_path / "step-00000005", head)
        return {name: value for name, value in head.state_dict().items() if isinstance(value, Tensor)}, head.steps

    read = on_ranks(read_by, loaded)
    for rows in ("weight", "row_optimizer.momentum_cD"):
        assert torch.equal(torch.cat([part[rows] for part, _ in read]), torch.cat([part[rows] for part in written]))
    for state, steps in read:
        assert steps == 3
        for name in ("objective.scale", "objective.steps"):
            assert torch.equal(state[name], written[0][name])


def test_training_goes_on_from_a_loaded_head_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    on_ranks(2, lambda world: saved(tmp_path, world))
    loaded = new_head(World(), seed=99)
    load_head(tmp_path / "step-00000005", loaded)
    straight = stepped(stepped(new_head(World()), World()), World(), 2, first=3)
    resumed = stepped(loaded, World(), 2, first=3)
    torch.testing.assert_close(resumed.weight, straight.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(resumed.objective.state_dict(), straight.objective.state_dict())


def test_a_head_of_other_classes_dimensions_or_objective_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, World())
    folder = tmp_path / "step-00000005"
    with pytest.raises(ValueError, match="holds a head of 11 classes x 6 dimensions: expected 12 x 6"):
        load_head(folder, new_head(World(), num_classes=12))
    with pytest.raises(ValueError, match="expected 11 x 7"):
        load_head(folder, ShardedClassifier(C, 7, AdaCos(C), world=World()))
    with pytest.raises(ValueError, match="another objective"):
        load_head(folder, ShardedClassifier(C, D, CosineSoftmax(16.0), world=World()))


def test_momentum_may_be_taken_up_or_left_out(tmp_path: Path) -> None:
    written = saved(tmp_path, World())
    without = new_head(World(), momentum=0.0, seed=99)
    load_head(tmp_path / "step-00000005", without)
    assert torch.equal(without.weight, written["weight"])
    save_checkpoint(tmp_path, 6, nn.Linear(2, 2), without, World(), FACTS)
    with_momentum = new_head(World(), seed=98)
    load_head(tmp_path / "step-00000006", with_momentum)
    assert torch.equal(with_momentum.weight, written["weight"])
    assert not with_momentum.get_buffer("row_optimizer.momentum_cD").any()


def test_a_checkpoint_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's own name exists only after the last file has been written."""
    rename = Path.rename

    def checked(path: Path, target: Path) -> Path:
        names = {file.name for file in path.iterdir()}
        assert names == {"backbone.pt", "manifest.json", "head-00000-of-00002.pt", "head-00001-of-00002.pt"}
        assert not target.exists()
        with pytest.raises(FileNotFoundError, match="no checkpoint in"):
            latest_checkpoint(tmp_path)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", checked)
    on_ranks(2, lambda world: saved(tmp_path, world))
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-00000005"]
    manifest = json.loads((tmp_path / "step-00000005" / "manifest.json").read_text())
    assert manifest == {"step": 5, "num_classes": C, "embedding_dim": D, "head_parts": 2, **FACTS}


def test_a_save_that_was_killed_is_ignored_and_written_anew(tmp_path: Path) -> None:
    saved(tmp_path, World(), step=5)
    torn = tmp_path / "step-00000006.partial"
    torn.mkdir()
    (torn / "manifest.json").write_text("{}")
    (torn / "head-00007-of-00009.pt").write_bytes(b"left over")
    (tmp_path / "step-00000007").mkdir()  # no manifest: nobody's checkpoint
    assert latest_checkpoint(tmp_path).name == "step-00000005"
    saved(tmp_path, World(), step=6)
    assert latest_checkpoint(tmp_path).name == "step-00000006"
    assert not torn.exists()
    assert not (tmp_path / "step-00000006" / "head-00007-of-00009.pt").exists()


def test_the_latest_checkpoint_is_the_one_of_the_highest_step(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        saved(tmp_path, World(), step=step)
    assert latest_checkpoint(tmp_path).name == "step-00000100"
    with pytest.raises(FileNotFoundError, match="expected a folder step-N"):
        latest_checkpoint(tmp_path / "nowhere")


def test_a_step_saved_again_replaces_the_first(tmp_path: Path) -> None:
    on_ranks(3, lambda world: saved(tmp_path, world))
    saved(tmp_path, World())
    assert sorted(file.name for file in (tmp_path / "step-00000005").iterdir()) == [
        "backbone.pt",
        "head-00000-of-00001.pt",
        "manifest.json",
    ]


def test_the_backbones_file_is_a_plain_state_dict_under_arcface_torchs_keys(tmp_path: Path) -> None:
    network = new_backbone("r18", width=4, embedding_dim=16, input_size=16)
    save_checkpoint(tmp_path, 1, network, new_head(World()), World(), FACTS)
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


def test_buffers_are_averaged_over_the_ranks_and_integers_left_alone() -> None:
    def averaged(world: World) -> nn.BatchNorm1d:
        norm = nn.BatchNorm1d(3)
        assert norm.running_mean is not None
        assert norm.num_batches_tracked is not None
        norm.running_mean.fill_(float(world.rank))
        norm.num_batches_tracked.fill_(7)
        average_buffers(norm, world)
        return norm

    for norm in on_ranks(4, averaged):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.running_mean.tolist() == [1.5] * 3
        assert norm.running_var.tolist() == [1.0] * 3
        assert int(norm.num_batches_tracked or 0) == 7
