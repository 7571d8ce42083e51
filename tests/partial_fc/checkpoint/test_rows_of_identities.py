"""Class rows follow their identities to other labels, other sets and other ranks, bitwise; ranks are threads."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from simulation import on_ranks
from torch import Tensor, nn

from partial_fc import AdaCos, CosFace, RowAdamW, ShardedClassifier, World
from partial_fc.checkpoint import identities as identities_module
from partial_fc.checkpoint.identities import IDENTITY, RowCounts, compared
from partial_fc.checkpoint.layout import CheckpointFolder, Manifest, latest_checkpoint
from partial_fc.checkpoint.loading import load_head, load_training_state, start_rows
from partial_fc.checkpoint.saving import Saver
from partial_fc.checkpoint.training_state import TrainingState, rows_of
from partial_fc.rows.sampling import initial_rows

D, N, STEPS = 6, 16, 3
BEFORE = [10**12 + 7 * person for person in range(11)]
Rows = dict[str, Tensor]


def state_of(world: World, people: Sequence[int] | None, num_classes: int | None = None) -> TrainingState:
    """A network and a head with AdamW's state in bfloat16; ``people`` are the identities by label."""
    torch.manual_seed(0)
    network = nn.Linear(4, D)
    number = num_classes or len(people or ())
    rows = RowAdamW(0.01, state_dtype=torch.bfloat16)
    head = ShardedClassifier(number, D, AdaCos(number), world=world, row_optimizer=rows, sample_rate=0.6)
    keys_c = None if people is None else torch.tensor(people)[head.shard.start : head.shard.stop]
    return TrainingState(network, head, torch.optim.SGD(network.parameters(), 0.1), world, identities_c=keys_c)


def save(folder: Path, world: World, people: Sequence[int] | None, num_classes: int | None = None) -> Rows:
    """Some steps and a checkpoint of them; this rank's rows and their state."""
    state = state_of(world, people, num_classes)
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        inputs_N = torch.randn(N, 4, generator=generator)
        labels_N = torch.randint(state.head.num_classes, (N,), generator=generator)
        inputs_n, labels_n = (each.tensor_split(world.size)[world.rank] for each in (inputs_N, labels_N))
        state.head(state.backbone(inputs_n), labels_n).backward()
    saver = Saver(folder, state, {})
    saver.save(STEPS)
    saver.wait()
    return {name: tensor.detach().clone() for name, tensor in rows_of(state.head).items()}


def loaded(
    folder: Path, world: World, people: Sequence[int] | None, number: int | None = None
) -> tuple[Rows, RowCounts]:
    state = state_of(world, people, number)
    taken = load_training_state(latest_checkpoint(folder), state, seed=0)
    assert taken.step == state.head.steps == STEPS
    return {name: tensor.detach() for name, tensor in rows_of(state.head).items()}, taken.rows


def whole(parts: Sequence[Rows]) -> Rows:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def changed(chance: random.Random) -> list[int]:
    """Some of the people of before and some others, in any order."""
    people = chance.sample(BEFORE, chance.randint(1, len(BEFORE)))
    people += chance.sample(range(-50, 50), chance.randint(max(3 - len(people), 0), 8))
    chance.shuffle(people)
    return people


@pytest.mark.parametrize("written_by", [1, 2, 3, 4])
@pytest.mark.parametrize("read_by", [1, 2, 3, 4])
def test_every_kept_identity_has_its_row_and_state_and_every_new_one_begins(
    tmp_path: Path, written_by: int, read_by: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = whole(on_ranks(written_by, lambda world: save(tmp_path, world, BEFORE)))
    chance = random.Random(10 * written_by + read_by)
    for block_bytes in (1, 64, 64 << 20):
        monkeypatch.setattr(identities_module, "_BLOCK_BYTES", block_bytes)
        people = changed(chance)
        read = on_ranks(read_by, lambda world, people=people: loaded(tmp_path, world, people))  # type: ignore[misc]
        after = whole([rows for rows, _ in read])
        kept = set(BEFORE) & set(people)
        assert {counts for _, counts in read} == {(len(kept), len(people) - len(kept), len(BEFORE) - len(kept))}
        first = initial_rows(range(len(people)), D, 0)
        for label, person in enumerate(people):
            for name, tensor in after.items():
                if person in kept:
                    assert torch.equal(tensor[label], before[name][BEFORE.index(person)]), (name, label)
                elif name != "weight":
                    assert not tensor[label].any(), (name, label)
            if person not in kept:
                assert after["weight"][label].norm().item() == pytest.approx(1, abs=1e-6)
                assert not torch.equal(after["weight"][label], first[label]), "no row that another began with"


@pytest.mark.parametrize("size", [2, 13])
def test_new_rows_do_not_depend_on_the_number_of_ranks(tmp_path: Path, size: int) -> None:
    save(tmp_path, World(), BEFORE)
    people = [3, *BEFORE[4:], 1, 2]
    (alone,) = on_ranks(1, lambda world: loaded(tmp_path, world, people)[0])
    together = whole(on_ranks(size, lambda world: loaded(tmp_path, world, people)[0]))
    for name, tensor in alone.items():
        assert torch.equal(together[name], tensor), name


@pytest.mark.parametrize("size", [1, 3])
def test_a_new_run_starts_from_the_kept_rows_at_unit_length_with_new_state(tmp_path: Path, size: int) -> None:
    before = whole(on_ranks(2, lambda world: save(tmp_path, world, BEFORE)))
    people = [*reversed(BEFORE[3:]), 5]

    def started(world: World) -> Rows:
        state = state_of(world, people)
        counts = start_rows(latest_checkpoint(tmp_path), state.head, state.identities_c)
        assert str(counts) == "8 kept, 1 new, 3 removed"
        assert state.head.steps == 0
        return rows_of(state.head)

    after = whole(on_ranks(size, started))
    torch.testing.assert_close(after["weight"][:8], before["weight"][3:].flip(0))
    torch.testing.assert_close(after["weight"].norm(dim=1), torch.ones(9))
    assert not any(tensor.any() for name, tensor in after.items() if name != "weight")


def test_the_usual_resume_looks_into_no_file_but_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = on_ranks(3, lambda world: save(tmp_path, world, BEFORE))
    read: list[str] = []
    saved_identities = identities_module._saved_identities

    def noted(checkpoint: CheckpointFolder, manifest: Manifest, file: Path) -> Tensor:
        read.append(file.name)
        return saved_identities(checkpoint, manifest, file)

    monkeypatch.setattr(identities_module, "_saved_identities", noted)
    after = on_ranks(3, lambda world: loaded(tmp_path, world, BEFORE)[0])
    assert sorted(read) == [f"rank-0000{rank}-of-00003.safetensors" for rank in range(3)]
    for mine, theirs in zip(after, before, strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_what_would_be_kept_is_known_before(tmp_path: Path) -> None:
    on_ranks(3, lambda world: save(tmp_path, world, BEFORE))
    checkpoint = CheckpointFolder(latest_checkpoint(tmp_path))
    assert compared(checkpoint, torch.tensor([*BEFORE[2:], 1, 2, 3])) == (9, 3, 2)
    identities = [load_file(checkpoint.rank(rank, 3))[IDENTITY] for rank in range(3)]
    assert torch.cat(identities).tolist() == BEFORE


def test_without_identities_on_either_side_a_class_is_its_label(tmp_path: Path) -> None:
    before = save(tmp_path, World(), None, len(BEFORE))
    for people in (BEFORE, None):
        after, counts = loaded(tmp_path, World(), people, len(BEFORE))
        assert counts == (len(BEFORE), 0, 0)
        assert torch.equal(after["weight"], before["weight"])
    with pytest.raises(ValueError, match="11 classes x 6 dimensions: expected 12 x 6, as nothing says whose its rows"):
        loaded(tmp_path, World(), [*BEFORE, 1])
    save(tmp_path, World(), BEFORE)
    assert torch.equal(loaded(tmp_path, World(), None, len(BEFORE))[0]["weight"], before["weight"])


def test_a_head_of_which_nothing_is_kept_or_of_other_dimensions_is_refused(tmp_path: Path) -> None:
    on_ranks(2, lambda world: save(tmp_path, world, BEFORE))
    folder = latest_checkpoint(tmp_path)

    def refused(world: World) -> str:
        state = state_of(world, [1, 2, 3])
        before = state.head.weight.detach().clone()
        with pytest.raises(ValueError, match="has a row for none of the 3 identities of this set, but for 11 others"):
            load_training_state(folder, state, 0)
        assert torch.equal(state.head.weight, before)
        return ""

    on_ranks(3, refused)
    head = ShardedClassifier(2, D + 1, CosFace(), world=World())
    with pytest.raises(ValueError, match=re.escape("11 classes x 6 dimensions: expected 2 x 7") + "$"):
        load_head(folder, head, torch.tensor(BEFORE[:2]))


@pytest.mark.parametrize("damage", ["bit", "cut", "missing"])
def test_a_damaged_file_is_named_before_any_row_moves(tmp_path: Path, damage: str) -> None:
    on_ranks(2, lambda world: save(tmp_path, world, BEFORE))
    folder = latest_checkpoint(tmp_path)
    path = folder / "rank-00001-of-00002.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content if damage == "bit" else content[:-9])
    if damage == "missing":
        path.unlink()
    state = state_of(World(), [*reversed(BEFORE), 1])
    before = state.head.weight.detach().clone()
    word = {"bit": "CRC-32", "cut": "bytes, and the manifest says", "missing": "is missing"}[damage]
    for take in (load_head, start_rows):
        with pytest.raises(ValueError, match=rf"rank-00001-of-00002\.safetensors.*{word}"):
            take(folder, state.head, state.identities_c)
    assert torch.equal(state.head.weight, before)


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_scale_that_follows_from_the_batches_goes_on_and_a_fixed_one_follows_the_classes(
    tmp_path: Path, dynamic: bool
) -> None:
    before, after = state_of(World(), BEFORE), state_of(World(), [*BEFORE, *range(100)])
    learnt, fine_tuned = AdaCos(11, dynamic=dynamic), AdaCos(111, dynamic=dynamic)
    before.head.objective, after.head.objective = learnt, fine_tuned
    first = fine_tuned.scale.item()
    before.head(before.backbone(torch.randn(N, 4)), torch.arange(N) % 11).backward()
    before.head(before.backbone(torch.randn(N, 4)), torch.arange(N) % 11).backward()
    saver = Saver(tmp_path, before, {})
    saver.save(1)
    saver.wait()
    load_training_state(latest_checkpoint(tmp_path), after, 0)
    assert fine_tuned.scale.item() == (learnt.scale.item() if dynamic else first)
    assert fine_tuned.steps.item() == learnt.steps.item()
