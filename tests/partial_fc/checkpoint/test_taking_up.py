"""A training of arcface_torch goes on here: its state is taken over, and its losses are those of the one that went on.

The tolerances. Where rows have one length (``equal_lengths``) our arithmetic is theirs in another order: last places
differ, by 1e-7, which a training amplifies step by step. Otherwise rows of length ``r`` learn ``r² / r̄²`` times as
fast as there: by some 10 % more or less. That is so much of the changes that a few steps make to a loss, and one part
in a hundred of the loss. With new optimizers a loss is off by tenths of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from simulation import on_ranks
from their_training import (
    ADAMW_DECAY,
    ADAMW_RATE,
    BATCH,
    CLASSES,
    CLIP,
    DIM,
    MARGIN,
    RATE,
    SCALE,
    TOTAL_STEPS,
    TheirTraining,
    batch,
    network,
)
from torch import Tensor, nn
from torch.nn import functional

from partial_fc import AdaCos, CosFace, Objective, RowAdamW, RowOptimizer, RowSGD, ShardedClassifier, World
from partial_fc.checkpoint.arcface_torch import Origin, training_at, write_checkpoint
from partial_fc.checkpoint.layout import CheckpointFolder
from partial_fc.checkpoint.taking_up import equal_row_rate, take_up
from partial_fc.checkpoint.training_state import TrainingState
from partial_fc.schedule import learning_rate_factor

THERE, FURTHER = 10, 6  # steps
ALL = ("backbone", "rows")


class Moved(NamedTuple):
    """A training as it was saved there, its import here, and the losses of those of its steps that followed there."""

    theirs: Path
    folder: Path
    losses: Tensor


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], Moved]:
    """Trainings by their number of ranks and kind."""
    made = {}
    for ranks, kind in ((1, "equal"), (2, "equal"), (2, "sgd"), (1, "adamw")):
        folder = tmp_path_factory.mktemp(f"{kind}-{ranks}")
        training = TheirTraining(ranks, "adamw" if kind == "adamw" else "sgd", equal_lengths=kind == "equal")
        training.train(THERE)
        training.save(folder / "there")
        imported = write_checkpoint(training_at(folder / "there"), folder / "here", {})
        made[ranks, kind] = Moved(folder / "there", imported, torch.tensor(training.train(FURTHER)))
    return made


def origin_of(folder: Path) -> Origin:
    origin = Origin.of(CheckpointFolder(folder).manifest())
    assert origin is not None
    return origin


def kind_of(folder: Path) -> str:
    course = origin_of(folder).course
    return course.optimizer if course else "sgd"


def state_of(kind: str, world: World, *, objective: Objective | None = None, row_rate: float = 0.0) -> TrainingState:
    """A new run's state on one rank, with optimizers as theirs."""
    backbone = network().train()
    parameters = list(backbone.parameters())
    if kind == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameters, lr=ADAMW_RATE, weight_decay=ADAMW_DECAY)
        rows: RowOptimizer = RowAdamW(row_rate)
    else:
        optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=0.9, weight_decay=5e-4)
        rows = RowSGD(row_rate, momentum=0.9)
    head = ShardedClassifier(CLASSES, DIM, objective or CosFace(SCALE, MARGIN), world=world, row_optimizer=rows)
    return TrainingState(backbone, head, optimizer, world)


def losses_here(folder: Path, ranks: int, kept: Sequence[str] = ALL) -> Tensor:
    """Those of the imported training, gone on with on so many ranks; ``kept``: whose optimizer's state is not new."""
    origin = origin_of(folder)
    assert origin.course is not None
    assert origin.row_length is not None
    row_rate = equal_row_rate(origin.course, origin.row_length, BATCH)

    def run(world: World) -> list[float]:
        state = state_of(kind_of(folder), world, row_rate=row_rate)
        first = take_up(folder, state, origin, seed=0, batch_size=BATCH).step
        assert state.head.row_optimizer is not None
        if "backbone" not in kept:
            state.optimizer.state.clear()
        for tensor in state.head.row_optimizer.buffers() if "rows" not in kept else ():
            tensor.zero_()
        return trained(state, range(first, first + FURTHER))

    return torch.tensor(on_ranks(ranks, run)[0])


def trained(state: TrainingState, steps: range) -> list[float]:
    """Train for ``steps``, at the rates that the optimizers have now times the schedule's; the losses."""
    rows, (group,) = state.head.row_optimizer, state.optimizer.param_groups
    assert rows is not None
    largest, losses = (group["lr"], rows.learning_rate), []
    for step in steps:
        factor = learning_rate_factor(step, total_steps=TOTAL_STEPS)
        group["lr"], rows.learning_rate = factor * largest[0], factor * largest[1]
        losses.append(_step(state, step))
    group["lr"], rows.learning_rate = largest
    return losses


def _step(state: TrainingState, step: int) -> float:
    world = state.world
    images, labels = (each.tensor_split(world.size)[world.rank] for each in batch(step))
    loss: Tensor = state.head(state.backbone(images), labels)
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for parameter in state.backbone.parameters():
        if parameter.grad is not None:
            parameter.grad = world.all_sum(parameter.grad)
    nn.utils.clip_grad_norm_(state.backbone.parameters(), CLIP)
    state.optimizer.step()
    return float(loss.detach())


def error(found: Tensor, expected: Tensor) -> float:
    """The mean relative error of the losses after the first, which no state changes."""
    return float(((found - expected).abs() / expected)[1:].mean())


@pytest.mark.parametrize("ranks", [1, 2])
def test_rows_of_one_length_go_on_with_the_losses_there_but_for_rounding(
    moved: dict[tuple[int, str], Moved], ranks: int
) -> None:
    _, folder, losses = moved[ranks, "equal"]
    found = losses_here(folder, ranks)
    torch.testing.assert_close(found[:4], losses[:4], rtol=1e-5, atol=0)
    torch.testing.assert_close(found, losses, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("ranks", "kind"), [(2, "sgd"), (1, "adamw")])
def test_rows_of_many_lengths_go_on_with_the_losses_there_to_first_order(
    moved: dict[tuple[int, str], Moved], ranks: int, kind: str
) -> None:
    theirs, folder, losses = moved[ranks, kind]
    lengths = torch.cat([part["state_dict_softmax_fc"]["weight"].norm(dim=1) for part in contents(theirs)])
    assert lengths.max() > 1.2 * lengths.min(), "or the test shows nothing"
    found = losses_here(folder, ranks)
    torch.testing.assert_close(found[0], losses[0], rtol=1e-5, atol=0)
    with_state = error(found, losses)
    assert with_state < 0.02
    for kept in ((), ("rows",), ("backbone",)) if kind == "sgd" else ((),):
        assert error(losses_here(folder, ranks, kept), losses) > 4 * with_state, kept


def contents(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(file, weights_only=True) for file in sorted(folder.glob("checkpoint_gpu_*.pt"))]


def taken(folder: Path, size: int, *, objective: Objective | None = None, row_rate: float = 0.0) -> list[TrainingState]:
    """The states of so many ranks that took the import up."""

    def state(world: World) -> TrainingState:
        made = state_of(kind_of(folder), world, objective=objective, row_rate=row_rate)
        take_up(folder, made, origin_of(folder), seed=0, batch_size=BATCH)
        return made

    return on_ranks(size, state)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kind", [(2, "sgd"), (1, "adamw")])
def test_the_state_is_theirs_on_any_number_of_ranks(
    moved: dict[tuple[int, str], Moved], kind: tuple[int, str], size: int
) -> None:
    theirs, folder, _ = moved[kind]
    parts, states = contents(theirs), taken(folder, size, row_rate=0.25)
    saved = parts[0]["state_optimizer"]["state"]
    for state in states:
        for number, parameter in enumerate(state.backbone.parameters()):
            for key, value in saved.get(number, {}).items():
                assert torch.equal(state.optimizer.state[parameter][key], value), "bitwise"
        assert len(state.optimizer.state) == len(saved) - 1
        assert state.head.steps == THERE

    rows_CD = torch.cat([part["state_dict_softmax_fc"]["weight"] for part in parts])
    last = len(list(states[0].backbone.parameters()))
    of_rows = [part["state_optimizer"]["state"][last] for part in parts]
    length_C1 = rows_CD.norm(dim=1, keepdim=True)
    torch.testing.assert_close(torch.cat([state.head.weight for state in states]), functional.normalize(rows_CD))

    def of_ours(name: str) -> Tensor:
        return torch.cat([state.of_rank()[f"row.row_optimizer.{name}"] for state in states])

    if kind[1] == "sgd":  # a momentum on its way moves a direction by as much here, at a rate of 0.25, as there
        expected_CD = RATE / 0.25 / length_C1 * torch.cat([part["momentum_buffer"] for part in of_rows])
        torch.testing.assert_close(of_ours("momentum_cD"), expected_CD)
        return
    first_CD, second_CD = (torch.cat([part[key] for part in of_rows]) for key in ("exp_avg", "exp_avg_sq"))
    scale_C1 = BATCH * length_C1
    torch.testing.assert_close(of_ours("first_moment_cD"), scale_C1 * first_CD)
    torch.testing.assert_close(of_ours("second_moment_cD"), scale_C1**2 * second_CD)
    assert set(of_ours("updates_c").tolist()) == {THERE}


def test_batch_norm_goes_on_from_each_ranks_own_statistics(moved: dict[tuple[int, str], Moved]) -> None:
    theirs, folder, _ = moved[2, "sgd"]
    parts = [part["state_dict_backbone"] for part in contents(theirs)]
    name = "bn1.running_mean"
    assert not torch.equal(parts[0][name], parts[1][name])
    for size, owners in ((2, [0, 1]), (3, [0, 0, 0])):
        found = [state.backbone.get_buffer(name) for state in taken(folder, size)]
        assert all(torch.equal(mine, parts[owner][name]) for mine, owner in zip(found, owners, strict=True))


def test_an_objective_that_theirs_does_not_know_starts_new(moved: dict[tuple[int, str], Moved]) -> None:
    objective = AdaCos(CLASSES)
    before = {name: buffer.clone() for name, buffer in objective.named_buffers()}
    taken(moved[1, "adamw"].folder, 1, objective=objective)
    assert before
    assert all(torch.equal(buffer, before[name]) for name, buffer in objective.named_buffers())


def test_weights_without_their_optimizer_are_taken_up_with_a_new_one(tmp_path: Path) -> None:
    training = TheirTraining(1)
    training.train(1)
    training.save(tmp_path / "there", state_optimizer=None)
    torch.save(training.backbone.state_dict(), tmp_path / "model.pt")
    for given, rows in ((tmp_path / "there", 1), (tmp_path / "model.pt", 0)):
        read = training_at(given)
        assert read.course is None
        assert read.without == ("there is no state_optimizer" if rows else "there is no checkpoint_gpu_0.pt")
        folder = write_checkpoint(read, tmp_path / f"here-{rows}", {})
        state = taken(folder, 1)[0]
        assert not state.optimizer.state
        assert torch.equal(state.backbone.state_dict()["conv1.weight"], training.backbone.state_dict()["conv1.weight"])
        cosines_C = functional.cosine_similarity(state.head.weight, training.weight)
        assert bool((cosines_C > 0.999).all()) == bool(rows)
        torch.testing.assert_close(state.head.weight.norm(dim=1), torch.ones(CLASSES))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"momentum_buffer": torch.zeros(2, DIM)},
            r"momentum_buffer of the class rows .* shape \(2, 32\), and they have",
        ),
        (None, r"checkpoint_gpu_1\.pt: there is no state_optimizer; checkpoint_gpu_0\.pt fits: keep"),
    ],
)
def test_a_shard_whose_state_is_not_that_of_its_rows_is_refused(
    tmp_path: Path, change: dict[str, Tensor] | None, said: str
) -> None:
    training = TheirTraining(2)
    training.train(1)
    training.save(tmp_path)
    file = tmp_path / "checkpoint_gpu_1.pt"
    content = torch.load(file, weights_only=True)
    last = max(content["state_optimizer"]["state"])
    state = content["state_optimizer"]
    content["state_optimizer"] = None if change is None else {**state, "state": {last: change}}
    torch.save(content, file)
    with pytest.raises(ValueError, match=said):
        write_checkpoint(training_at(tmp_path), tmp_path / "here", {})


def test_a_damaged_import_is_not_taken_up(tmp_path: Path, moved: dict[tuple[int, str], Moved]) -> None:
    folder = moved[2, "sgd"].folder
    copy = tmp_path / folder.name
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    content = bytearray((copy / "shared.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "shared.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"shared\.safetensors is damaged: .*: import it again"):
        taken(copy, 1)
