"""What a save takes of memory and of the training's time, with room for a copy of the state and without."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from simulation import on_ranks
from torch import nn

from benchmarks.memory import HighWaterMark
from partial_fc import AdaCos, RowSGD, ShardedClassifier, World
from partial_fc.checkpoint.copies import Copies, room_bytes
from partial_fc.checkpoint.layout import CheckpointFolder, latest_checkpoint
from partial_fc.checkpoint.saving import Saver
from partial_fc.checkpoint.tensor_file import PIECE_BYTES
from partial_fc.checkpoint.training_state import TrainingState
from partial_fc.checkpoint.writing import Saved
from partial_fc.divergence import TrainingDiverged

CPU = torch.device("cpu")


@dataclass
class Training:
    state: TrainingState
    saver: Saver
    saved: list[Saved]


def training(folder: Path, world: World, classes: int = 11, dim: int = 6, **options: Any) -> Training:
    network, saved = nn.Sequential(nn.Linear(3, dim), nn.BatchNorm1d(dim)), list[Saved]()
    head = ShardedClassifier(classes, dim, AdaCos(classes), world=world, row_optimizer=RowSGD(0.1, 0.9))
    optimizer = torch.optim.AdamW(network.parameters(), 0.1)
    state = TrainingState(network, head, optimizer, world)
    return Training(state, Saver(folder, state, {}, on_saved=saved.append, **options), saved)


def step(run: Training) -> None:
    """A step of the backbone's optimizer, which makes its state."""
    for parameter in run.state.backbone.parameters():
        parameter.grad = torch.ones_like(parameter)
    run.state.optimizer.step()


def test_copies_are_equal_with_the_same_strides_and_storages_of_their_own() -> None:
    tensors = {
        "rows": torch.randn(5, 3),
        "channels last": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "part": torch.randn(9, 4)[::2, 1:],
        "state": torch.randn(7).bfloat16(),
        "flag": torch.tensor(True),
        "none": torch.empty(0, 3, dtype=torch.int64),
    }
    copies = Copies(room_bytes(tensors), CPU)(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(copies[name], tensor), name
        assert copies[name].untyped_storage().nbytes() == tensor.nbytes, name
    assert copies["channels last"].stride() == tensors["channels last"].stride()


def test_the_memory_taken_before_the_first_step_holds_every_save(tmp_path: Path) -> None:
    run = training(tmp_path, World())
    assert run.saver.prepare()
    taken = run.saver._copies
    step(run)
    for number in (1, 2):
        run.saver.save(number)
        run.saver.wait()
    assert run.saver._copies is taken, "AdamW's state came with the first step"
    assert [saved.in_parts for saved in run.saved] == [False, False]


def test_a_state_that_grew_is_saved_whole(tmp_path: Path) -> None:
    run = training(tmp_path, World())
    run.saver.prepare()
    run.state.backbone.register_buffer("late", torch.ones(1 << 19))
    run.saver.save(1)
    run.saver.wait()
    assert CheckpointFolder(latest_checkpoint(tmp_path)).problems() == []
    assert run.saved[0].size_bytes > 2 << 20


@pytest.mark.parametrize("size", [1, 3])
def test_in_parts_the_same_bytes_are_written_while_training_waits(tmp_path: Path, size: int) -> None:
    def saved(world: World, in_background: bool) -> list[Saved]:
        torch.manual_seed(3)
        run = training(tmp_path / str(in_background), world, in_background=in_background)
        step(run)
        torch.manual_seed(4)
        run.saver.save(5)
        assert (run.saver._writing is None) == (not in_background)
        run.saver.wait()
        return run.saved

    facts, backbones = [], []
    for in_background in (False, True):
        (one,) = on_ranks(size, partial(saved, in_background=in_background))[0]
        assert one.in_parts == (not in_background)
        assert (one.pause_seconds > one.writing_seconds) or in_background
        checkpoint = CheckpointFolder(latest_checkpoint(tmp_path / str(in_background)))
        assert checkpoint.problems() == []
        files = {name: fact for name, fact in checkpoint.manifest().files.items() if name.endswith(".safetensors")}
        facts.append(files if size == 1 else {})  # several ranks are threads here, which share a generator
        backbones.append(torch.load(checkpoint.backbone))
    assert facts[0] == facts[1]
    assert backbones[0].keys() == backbones[1].keys()
    assert size > 1 or all(torch.equal(backbones[0][key], value) for key, value in backbones[1].items())


@pytest.mark.parametrize("lacking", [0, 2])
def test_where_one_rank_has_no_room_all_write_in_parts(tmp_path: Path, lacking: int) -> None:
    def prepared(world: World) -> tuple[bool, list[Saved]]:
        run = training(tmp_path, world)
        told = run.saver.prepare(has_room=world.rank != lacking)
        run.saver.save(1)
        assert run.saver._copies is None
        return told, run.saved

    answers = on_ranks(3, prepared)
    assert [told for told, _ in answers] == [False] * 3
    assert [saved.in_parts for saved in answers[0][1]] == [True]
    assert CheckpointFolder(latest_checkpoint(tmp_path)).problems() == []


def test_a_weight_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    run = training(tmp_path, World())
    run.state.head.weight.data[3, 1] = torch.inf
    with pytest.raises(TrainingDiverged, match="not finite after step 2"):
        run.saver.save(2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
def test_a_save_takes_one_copy_of_the_state_and_in_parts_a_piece(tmp_path: Path) -> None:
    """The kernel's high-water mark over two saves of 66 MB, each way, in a process of its own."""
    try:
        HighWaterMark()
    except OSError as error:
        pytest.skip(f"this kernel does not tell a peak: {error}")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["partial_fc", "benchmarks.memory"])
    with context.Pool(1) as process:
        size_bytes, in_parts, in_background = process.apply(memory_of_saves, (tmp_path,))
    assert size_bytes > 65e6
    assert in_parts < 2 * PIECE_BYTES
    assert 0.9 * size_bytes < in_background < size_bytes + 2 * PIECE_BYTES


def memory_of_saves(folder: Path) -> tuple[int, int, int]:
    """The bytes of a checkpoint, and what the process grew by over two saves in parts, then in the background."""
    torch.set_num_threads(1)
    grown, gauge = [], HighWaterMark()
    for in_background in (False, True):
        run = training(folder / str(in_background), World(), 16_000, 512, in_background=in_background)
        run.saver.save(1)  # what the first one imports and keeps is no save's
        run.saver.wait()
        if in_background:
            run.saver._copies = None
        before = gauge.now_bytes()
        gauge.begin()
        for number in (2, 3):
            run.saver.save(number)
        run.saver.wait()
        grown.append(gauge.peak_bytes() - before)
    return run.saved[-1].size_bytes, grown[0], grown[1]
