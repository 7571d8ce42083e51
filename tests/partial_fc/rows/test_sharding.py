"""Class ids and their places: integers only."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from partial_fc.rows.sharding import class_range, owned_targets


@pytest.mark.parametrize(("num_classes", "size"), [(1, 1), (10, 1), (10, 3), (7, 8), (128, 128), (100_000_003, 64)])
def test_shards_are_contiguous_cover_every_class_once_and_differ_by_at_most_one(num_classes: int, size: int) -> None:
    shards = [class_range(num_classes, rank, size) for rank in range(size)]
    assert shards[0].start == 0
    assert shards[-1].stop == num_classes
    assert all(left.stop == right.start for left, right in pairwise(shards))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(("rank", "size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_that_does_not_exist_is_refused(rank: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank}"):
        class_range(10, rank, size)


def test_every_row_of_the_batch_has_one_owner_who_knows_its_column() -> None:
    labels_N = torch.tensor([4, 0, 9, 4, 3, 6])
    owners = torch.zeros(6)
    for rank in range(3):
        shard = class_range(10, rank, 3)
        rows, columns, is_here = owned_targets(labels_N, shard)
        assert is_here.all()
        owners[rows] += 1
        assert torch.equal(labels_N[rows], columns + shard.start)
    assert torch.equal(owners, torch.ones(6))


def test_an_empty_shard_owns_no_row() -> None:
    rows, columns, _ = owned_targets(torch.tensor([1, 2]), range(2, 2))
    assert len(rows) == len(columns) == 0


def test_rows_of_other_shards_listed_in_full_as_on_a_gpu_have_places_spread_over_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All at one place, a sum over them would be one place's, one after the other."""
    monkeypatch.setattr("partial_fc.rows.sharding._lists_all", lambda rows: True)
    labels_N = torch.tensor([1, 2, 50, 51, 52, 53, 54, 55])
    _, places, is_here = owned_targets(labels_N, range(3))
    assert is_here.tolist() == [True, True] + 6 * [False]
    assert places[:2].tolist() == [1, 2]
    assert torch.bincount(places[2:], minlength=3).tolist() == [2, 2, 2]
    assert owned_targets(labels_N, range(2, 2)).places.tolist() == 8 * [0]
