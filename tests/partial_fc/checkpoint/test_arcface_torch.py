"""Trainings of arcface_torch on disk, in its layout, become checkpoints of ours with equal embeddings and cosines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from simulation import on_ranks
from torch import Tensor, nn
from torch.nn import functional

from partial_fc import CosFace, ShardedClassifier, World
from partial_fc.backbones import backbone
from partial_fc.checkpoint.arcface_torch import Origin, Training, training_at, write_checkpoint
from partial_fc.checkpoint.layout import CheckpointFolder
from partial_fc.checkpoint.loading import load_backbone, load_head, start_rows

C, D = 11, 16


def network() -> nn.Module:
    return backbone("mbf", width=4, embedding_dim=D, input_size=32)


def content(rank: int, size: int, *, classes: int = C, epoch: int = 3, dim: int = D) -> dict[str, Any]:
    """What ``checkpoint_gpu_{rank}.pt`` holds: rows a hundredth long, as they are drawn there."""
    rows_CD = 0.01 * torch.randn(classes, dim, generator=torch.Generator().manual_seed(1))
    return {
        "epoch": epoch,
        "global_step": 333 * epoch,
        "state_dict_backbone": network().state_dict(),
        "state_dict_softmax_fc": {"weight": rows_CD.tensor_split(size)[rank].clone()},
        "state_optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        "state_lr_scheduler": {"last_epoch": 999, "base_lrs": [0.1]},
    }


def write(folder: Path, size: int, **options: int) -> None:
    for rank in range(size):
        torch.save(content(rank, size, **options), folder / f"checkpoint_gpu_{rank}.pt")


def imported(path: Path, out: Path) -> tuple[Training, Path]:
    training = training_at(path)
    return training, write_checkpoint(training, out, {"from": "there"})


@pytest.mark.parametrize("size", [1, 2, 4, 13])
@pytest.mark.parametrize("given", ["folder", "checkpoint_gpu_0.pt"])
def test_a_training_of_any_number_of_ranks_has_the_same_embeddings_and_loss_here(
    tmp_path: Path, size: int, given: str
) -> None:
    write(tmp_path, size)
    training, folder = imported(tmp_path if given == "folder" else tmp_path / given, tmp_path / "out")
    assert str(training) == (
        "mbf of width 4 for images of 32 pixels, with embeddings of 16 dimensions; "
        f"11 classes of {size} ranks; at epoch 3, step 999"
    )
    contents = [torch.load(tmp_path / f"checkpoint_gpu_{rank}.pt", weights_only=True) for rank in range(size)]
    theirs, ours = network().eval(), network().eval()
    theirs.load_state_dict(contents[0]["state_dict_backbone"])
    load_backbone(folder, ours)
    images, labels = torch.randn(6, 3, 32, 32), torch.tensor([0, 10, 3, 3, 7, 1])
    with torch.no_grad():
        embeddings = theirs(images)
        assert torch.equal(ours(images), embeddings)

    rows_CD = torch.cat([part["state_dict_softmax_fc"]["weight"] for part in contents])
    cosines = functional.normalize(embeddings) @ functional.normalize(rows_CD).T
    wanted = functional.cross_entropy(64 * (cosines - 0.4 * functional.one_hot(labels, C)), labels)

    def loss(world: World) -> tuple[Tensor, Tensor]:
        head = ShardedClassifier(C, D, CosFace(64.0, 0.4), world=world)
        load_head(folder, head)
        mine = torch.arange(6).tensor_split(world.size)[world.rank]
        return head(embeddings[mine], labels[mine]), head.weight.detach()

    found = on_ranks(2, loss)
    assert torch.equal(torch.cat([weight for _, weight in found]), rows_CD)
    torch.testing.assert_close(found[0][0], wanted, rtol=1e-5, atol=1e-5)


def test_what_is_written_says_where_it_comes_from_and_appears_whole(tmp_path: Path) -> None:
    write(tmp_path, 2)
    _, folder = imported(tmp_path, tmp_path / "out")
    ranks = [f"rank-0000{rank}-of-00002.safetensors" for rank in range(2)]
    assert sorted(file.name for file in folder.iterdir()) == [
        *("backbone.pt", "manifest.json"),
        *ranks,
        "shared.safetensors",
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"step-00000999", "latest"}
    manifest = CheckpointFolder(folder).manifest()
    assert (manifest.step, manifest.num_classes, manifest.embedding_dim, manifest.world_size) == (999, C, D, 2)
    assert manifest.facts["from"] == "there"
    origin = Origin.of(manifest)
    assert origin is not None
    assert (origin.epoch, origin.course) == (3, None)
    assert origin.without == "state_optimizer is of groups of [0] parameters, and not of [183, 1]"
    assert CheckpointFolder(folder).problems() == []


def test_the_moments_of_an_adamw_head_are_left_out(tmp_path: Path) -> None:
    made = content(0, 1)
    weight = made["state_dict_softmax_fc"]["weight"]
    made["state_dict_softmax_fc"] = {"weight_exp_avg": weight + 1, "weight": weight, "weight_exp_avg_sq": weight + 2}
    torch.save(made, tmp_path / "checkpoint_gpu_0.pt")
    _, folder = imported(tmp_path, tmp_path / "out")
    head = ShardedClassifier(C, D, CosFace(), world=World())
    load_head(folder, head)
    assert torch.equal(head.weight, weight)


@pytest.mark.parametrize("size", [1, 3])
def test_training_starts_from_the_rows_at_unit_length(tmp_path: Path, size: int) -> None:
    write(tmp_path, 2)
    _, folder = imported(tmp_path, tmp_path / "out")
    contents = [torch.load(tmp_path / f"checkpoint_gpu_{rank}.pt", weights_only=True) for rank in range(2)]
    rows_CD = torch.cat([part["state_dict_softmax_fc"]["weight"] for part in contents])

    def started(world: World) -> Tensor:
        head = ShardedClassifier(C, D, CosFace(), world=world)
        start_rows(folder, head)
        return head.weight.detach()

    torch.testing.assert_close(torch.cat(on_ranks(size, started)), functional.normalize(rows_CD))


def test_rows_of_a_damaged_file_or_of_other_classes_are_not_started_from(tmp_path: Path) -> None:
    write(tmp_path, 2)
    _, folder = imported(tmp_path, tmp_path / "out")
    head = ShardedClassifier(C, D, CosFace(), world=World())
    before = head.weight.detach().clone()
    damaged = folder / "rank-00001-of-00002.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=r"rank-00001-of-00002\.safetensors is damaged: its CRC-32"):
        start_rows(folder, head)
    assert torch.equal(head.weight, before)
    with pytest.raises(ValueError, match="holds a head of 11 classes x 16 dimensions: expected 12 x 16"):
        start_rows(folder, ShardedClassifier(C + 1, D, CosFace(), world=World()))
    for path in (tmp_path / "none", folder / "backbone.pt"):
        with pytest.raises(ValueError, match="is no checkpoint: expected a folder with manifest"):
            start_rows(path, head)


@pytest.mark.parametrize("name", ["model.pt", "backbone.pth", "any.pth"])
def test_a_backbone_alone_has_no_class_rows(tmp_path: Path, name: str) -> None:
    given = network()
    torch.save({f"module.{key}": value for key, value in given.state_dict().items()}, tmp_path / name)
    training, folder = imported(tmp_path / name if name == "any.pth" else tmp_path, tmp_path / "out")
    assert str(training).endswith("of 16 dimensions; no class rows")
    found = network()
    load_backbone(folder, found)
    assert all(torch.equal(a, b) for a, b in zip(given.parameters(), found.parameters(), strict=True))
    with pytest.raises(ValueError, match="holds a head of 0 classes x 16 dimensions: expected 11 x 16"):
        load_head(folder, ShardedClassifier(C, D, CosFace(), world=World()))


def without_rank_1(folder: Path) -> None:
    write(folder, 4)
    (folder / "checkpoint_gpu_1.pt").unlink()


def of_two_numbers_of_ranks(folder: Path) -> None:
    write(folder, 4)
    write(folder, 2)


def of_two_saves(folder: Path) -> None:
    write(folder, 2)
    torch.save(content(1, 2, epoch=4), folder / "checkpoint_gpu_1.pt")


def without_rows(folder: Path) -> None:
    made = content(0, 1)
    del made["state_dict_softmax_fc"]
    torch.save(made, folder / "checkpoint_gpu_0.pt")


def of_another_network(folder: Path) -> None:
    state = {"stem.weight": torch.ones(3, 2)}
    torch.save({**content(0, 1), "state_dict_backbone": state}, folder / "checkpoint_gpu_0.pt")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (without_rank_1, r"lacks checkpoint_gpu_1\.pt: there are 3 of ranks 0 to 3; bring the files of all"),
        (of_two_numbers_of_ranks, r"gpu_0\.pt holds 6 class rows, but 16 classes on 4 ranks make 4 there: .*are mixed"),
        (of_two_saves, r"gpu_1\.pt is of epoch 4, step 1,332, checkpoint_gpu_0\.pt of epoch 3, step 999: keep"),
        (without_rows, r"gpu_0\.pt holds no class rows: expected a matrix `weight` in its state_dict_softmax_fc"),
        (of_another_network, r"gpu_0\.pt: state_dict_backbone are those of no network .*1 tensors, the first is stem"),
        (lambda folder: write(folder, 1, dim=D + 1), "class rows of 17 dimensions; the backbone's embeddings have 16"),
        (lambda folder: None, r"holds no checkpoint_gpu_\*\.pt, model\.pt or backbone\.pth: give"),
    ],
)
def test_what_is_no_training_is_refused_in_a_line(tmp_path: Path, fault: Callable[[Path], None], said: str) -> None:
    fault(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
        training_at(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
