"""The sweep over pairs against a plain loop, on shares of it, and the examples it is illustrated with."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from partial_fc.functional import example_pairs, pair_scores
from partial_fc.functional.example_pairs import hardest_pairs
from partial_fc.functional.pair_scores import (
    SCORE_BINS,
    STEPS_PER_UNIT,
    pair_cosines,
    rank1_hits,
    triangle_share,
)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that 40 images need many, ragged ones among them."""
    for module in (pair_scores, example_pairs):
        monkeypatch.setattr(module, "ROWS_PER_TILE", 9)
        monkeypatch.setattr(module, "COLUMNS_PER_TILE", 13)


def some_embeddings(images: int = 40, identities: int = 9, ties: bool = False) -> tuple[Tensor, Tensor]:
    """Unit rows around their identity's centre; with ties the coordinates are few, so that many cosines are equal."""
    generator = torch.Generator().manual_seed(images + identities)
    labels_N = torch.randint(identities, (images,), generator=generator) * 1000
    rows_ND = torch.randn(identities, 6, generator=generator)[labels_N // 1000]
    rows_ND = rows_ND + 0.7 * torch.randn(images, 6, generator=generator)
    if ties:
        rows_ND = torch.where(rows_ND > 0, 1.0, -1.0)
    return torch.nn.functional.normalize(rows_ND, dim=1), labels_N


def plain_scores(unit_ND: Tensor, labels_N: Tensor) -> tuple[dict[int, int], dict[int, int], int, int]:
    """Histograms as dictionaries, hits and probes: one pair at a time."""
    rows, labels = unit_ND.double(), labels_N.tolist()
    score = {}
    histograms: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for i, j in combinations(range(len(labels)), 2):
        score[i, j] = score[j, i] = round(float(rows[i] @ rows[j]) * STEPS_PER_UNIT)
        histogram = histograms[labels[i] != labels[j]]
        histogram[score[i, j]] = histogram.get(score[i, j], 0) + 1
    hits = probes = 0
    for i in range(len(labels)):
        own = [score[i, j] for j in range(len(labels)) if j != i and labels[j] == labels[i]]
        others = [score[i, j] for j in range(len(labels)) if labels[j] != labels[i]]
        probes += bool(own)
        hits += bool(own) and max(own) > max(others, default=-SCORE_BINS)
    return *histograms, hits, probes


def as_dictionary(histogram: Tensor) -> dict[int, int]:
    return {int(k) - STEPS_PER_UNIT: int(histogram[k]) for k in histogram.nonzero()}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("images", "identities"), [(40, 9), (23, 40), (12, 1), (7, 3), (1, 1)])
def test_the_sweep_is_the_plain_loop(images: int, identities: int, ties: bool) -> None:
    unit_ND, labels_N = some_embeddings(images, identities, ties)
    scores = pair_scores.pair_scores(unit_ND, labels_N, triangle_share(images, 0, 1))
    genuine, impostor, hits, probes = plain_scores(unit_ND, labels_N)
    assert as_dictionary(scores.genuine) == genuine
    assert as_dictionary(scores.impostor) == impostor
    assert rank1_hits(scores.nearest_N, labels_N) == (hits, probes)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_of_the_sweep_add_up_to_the_whole_bit_for_bit(size: int) -> None:
    unit_ND, labels_N = some_embeddings()
    whole = pair_scores.pair_scores(unit_ND, labels_N, triangle_share(40, 0, 1))
    shares = [pair_scores.pair_scores(unit_ND, labels_N, triangle_share(40, rank, size)) for rank in range(size)]
    assert torch.equal(torch.stack([share.genuine for share in shares]).sum(0), whole.genuine)
    assert torch.equal(torch.stack([share.impostor for share in shares]).sum(0), whole.impostor)
    assert torch.equal(torch.stack([share.nearest_N for share in shares]).amax(0), whole.nearest_N)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_hold_each_row_once_and_about_equal_work(size: int) -> None:
    shares = [triangle_share(999, rank, size) for rank in range(size)]
    assert sorted(row for share in shares for block in share for row in block) == list(range(999))
    work = [sum(999 - row for block in share for row in block) for share in shares]
    assert max(work) - min(work) <= 9 * 999


def test_more_ranks_than_blocks_leave_some_without_work() -> None:
    assert [len(triangle_share(18, rank, 4)) for rank in range(4)] == [1, 1, 0, 0]


def test_a_tie_between_identities_is_a_miss() -> None:
    unit_ND = torch.tensor([[1.0, 0.0]]).repeat(6, 1)
    labels_N = torch.tensor([0, 0, 0, 1, 1, 2])
    scores = pair_scores.pair_scores(unit_ND, labels_N, triangle_share(6, 0, 1))
    assert rank1_hits(scores.nearest_N, labels_N) == (0, 5)


def test_an_identity_with_one_image_is_no_probe_but_a_distractor() -> None:
    unit_ND = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.4], [1.0, 0.1]]), dim=1)
    scores = pair_scores.pair_scores(unit_ND, torch.tensor([3, 3, 8]), triangle_share(3, 0, 1))
    assert rank1_hits(scores.nearest_N, torch.tensor([3, 3, 8])) == (0, 2)
    scores = pair_scores.pair_scores(unit_ND[:2], torch.tensor([3, 3]), triangle_share(2, 0, 1))
    assert rank1_hits(scores.nearest_N, torch.tensor([3, 3])) == (2, 2)


def test_cosines_a_little_outside_one_stay_in_the_histogram() -> None:
    unit_ND = torch.tensor([[1.00001, 0.0], [1.00001, 0.0], [-1.00001, 0.0]])
    scores = pair_scores.pair_scores(unit_ND, torch.tensor([0, 0, 1]), triangle_share(3, 0, 1))
    assert int(scores.genuine[-1]) == 1
    assert int(scores.impostor[0]) == 2


def test_listed_pairs_have_the_scores_of_the_sweep() -> None:
    unit_ND, _ = some_embeddings()
    first_P, second_P = torch.triu_indices(40, 40, offset=1)
    cos_P = pair_cosines(unit_ND, first_P, second_P)
    scores = pair_scores.pair_scores(unit_ND, torch.zeros(40, dtype=torch.int64), triangle_share(40, 0, 1))
    bins_P = ((cos_P + 1) * STEPS_PER_UNIT).long()
    assert torch.equal(torch.bincount(bins_P, minlength=SCORE_BINS), scores.genuine)


def plain_mistakes(unit_ND: Tensor, labels_N: Tensor, threshold: float, *, same: bool) -> list[tuple[float, int, int]]:
    """Mistaken pairs, the worst first, the way a person would list them."""
    pairs = combinations(range(len(labels_N)), 2)
    rated = [(float(unit_ND[i].double() @ unit_ND[j].double()), i, j) for i, j in pairs]
    rated = [row for row in rated if (labels_N[row[1]] == labels_N[row[2]]) == same]
    return sorted(row for row in rated if row[0] < threshold) if same else sorted(rated, reverse=True)


@pytest.mark.parametrize("same", [True, False])
def test_the_hardest_pairs_are_the_worst_mistakes_one_an_identity(same: bool) -> None:
    unit_ND, labels_N = some_embeddings()
    shown: set[int] = set()
    expected = []
    for cosine, i, j in plain_mistakes(unit_ND, labels_N, 0.5, same=same):
        identities = {int(labels_N[i]), int(labels_N[j])}
        if not identities & shown and (cosine < 0.5) == same:
            expected.append((round(cosine, 5), {i, j}))
            shown |= identities
    pairs = hardest_pairs(unit_ND, labels_N, 0.5, count=3)
    found = [pair for pair in pairs if (pair.same, pair.accepted) == (same, not same)]
    assert len(found) == 3
    assert [(round(pair.cosine, 5), {pair.first, pair.second}) for pair in found] == expected[:3]


def test_right_answers_are_shown_beside_the_mistakes() -> None:
    unit_ND, labels_N = some_embeddings()
    pairs = hardest_pairs(unit_ND, labels_N, 0.5, count=3)
    assert {(pair.same, pair.accepted) for pair in pairs} == {(a, b) for a in (True, False) for b in (True, False)}
    for pair in pairs:
        assert pair.first != pair.second
        assert pair.same == bool(labels_N[pair.first] == labels_N[pair.second])
        assert pair.accepted == (pair.cosine >= 0.5)
        assert pair.cosine == pytest.approx(float(unit_ND[pair.first] @ unit_ND[pair.second]), abs=1e-5)
    assert pairs == hardest_pairs(unit_ND, labels_N, 0.5, count=3)


def test_perfect_embeddings_have_no_mistakes_to_show() -> None:
    labels_N = torch.arange(20).repeat(2)
    pairs = hardest_pairs(torch.eye(20)[labels_N], labels_N, 0.5, count=2)
    assert [(pair.same, pair.accepted) for pair in pairs] == [(True, True)] * 2 + [(False, False)] * 2
