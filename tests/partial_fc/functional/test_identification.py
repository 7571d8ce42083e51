"""Searches against plain loops over all scores, ties included, and by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from partial_fc.functional import identification
from partial_fc.functional.genuine_pairs import genuine_pairs
from partial_fc.functional.identification import (
    NOTHING,
    Search,
    against_distractors,
    cumulative_match,
    search,
    tpir_at_fpir,
)
from partial_fc.functional.pair_scores import SCORE_BINS, STEPS_PER_UNIT


def some_rows(rows: int, seed: int, ties: bool) -> Tensor:
    """Unit rows; with ties many are the same."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(rows, 6, generator=generator), dim=1)
    return unit[torch.arange(rows) % 5] if ties else unit


def plain_scores(first: Tensor, second: Tensor) -> list[list[int]]:
    cosines = [[float(row.double() @ other.double()) for other in second] for row in first]
    return [[round((min(max(cos, -1.0), 1.0) + 1) * STEPS_PER_UNIT) for cos in row] for row in cosines]


def plain_search(scores: list[list[int]], probes: list[int], gallery: list[int]) -> list[tuple[int, list[int]]]:
    """The best score of a mate, and all scores of others from the best down."""
    found = []
    for row, label in zip(scores, probes, strict=True):
        mates = [score for score, other in zip(row, gallery, strict=True) if other == label]
        others = [score for score, other in zip(row, gallery, strict=True) if other != label]
        found.append((max(mates, default=NOTHING), sorted(others, reverse=True)))
    return found


cases = pytest.mark.parametrize(("seed", "ties"), [(seed, ties) for seed in range(3) for ties in (False, True)])


def some_case(seed: int, ties: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """40 probes of 14 people, 25 gallery rows of 9 of them and of 2 others: some probes have no mate, some three."""
    labels_P, labels_G = torch.arange(40) % 14, 5 + (torch.arange(25) + seed) % 11
    return some_rows(40, seed, ties), some_rows(25, seed + 100, ties), labels_P, labels_G


@pytest.fixture(params=[(1024, 4096), (7, 4), (1, 25)])
def _tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identification, "PROBES_PER_TILE", request.param[0])
    monkeypatch.setattr(identification, "GALLERY_PER_TILE", request.param[1])


@cases
@pytest.mark.usefixtures("_tile")
def test_a_search_is_the_plain_loop_s_whatever_the_tiles(seed: int, ties: bool) -> None:
    probe_PD, gallery_GD, labels_P, labels_G = some_case(seed, ties)
    found = search(probe_PD, gallery_GD, labels_P, labels_G, kept=4)
    expected = plain_search(plain_scores(probe_PD, gallery_GD), labels_P.tolist(), labels_G.tolist())
    assert 0 < int(found.mated_P.sum()) < 40
    assert found.mate_P.tolist() == [mate for mate, _ in expected]
    assert found.others_PK.tolist() == [others[:4] for _, others in expected]


def plain_rank(mate: int, others: list[int]) -> int:
    return 1 + sum(other >= mate for other in others)


@cases
def test_the_cumulative_match_is_the_plain_loop_s(seed: int, ties: bool) -> None:
    probe_PD, gallery_GD, labels_P, labels_G = some_case(seed, ties)
    found = cumulative_match(search(probe_PD, gallery_GD, labels_P, labels_G, kept=25), 25)
    each = plain_search(plain_scores(probe_PD, gallery_GD), labels_P.tolist(), labels_G.tolist())
    ranks = [plain_rank(mate, others) for mate, others in each if mate != NOTHING]
    assert found == [sum(rank <= k for rank in ranks) / len(ranks) for k in range(1, 26)]
    assert 0 <= found[0] < found[12] < 1
    assert found[-1] == 1.0


@cases
@pytest.mark.parametrize("fpir", [1.0, 0.5, 0.3, 0.1])
def test_tpir_at_fpir_is_that_of_the_lowest_allowed_threshold(seed: int, ties: bool, fpir: float) -> None:
    probe_PD, gallery_GD, labels_P, labels_G = some_case(seed, ties)
    found = tpir_at_fpir(search(probe_PD, gallery_GD, labels_P, labels_G, kept=1), fpir)
    each = plain_search(plain_scores(probe_PD, gallery_GD), labels_P.tolist(), labels_G.tolist())
    strangers = [others[0] for mate, others in each if mate == NOTHING]
    mates = [mate for mate, _ in each if mate != NOTHING]
    if Fraction(str(fpir)) * len(strangers) < 1:
        assert found is None
        return
    for threshold in sorted({0} | {score + 1 for score in strangers}):
        if sum(score >= threshold for score in strangers) <= Fraction(str(fpir)) * len(strangers):
            break
    assert found == (sum(mate >= threshold for mate in mates) / len(mates), threshold / STEPS_PER_UNIT - 1)


def test_identification_by_hand() -> None:
    """Ann is found first; Bob ties with a stranger and is second; Cid's row is third; Dan and Eve have no mate."""
    found = Search(
        mate_P=torch.tensor([900, 500, 201, NOTHING, NOTHING], dtype=torch.int32),
        others_PK=torch.tensor([[100, 50], [500, 400], [310, 305], [450, 1], [200, 1]], dtype=torch.int32),
    )
    assert cumulative_match(found, 2) == [1 / 3, 2 / 3]
    assert tpir_at_fpir(found, 0.5) == (
        1.0,
        201 / STEPS_PER_UNIT - 1,
    )  # Dan may be found, Eve at 200 not; Cid is, at 201
    assert tpir_at_fpir(found, 1.0) == (1.0, -1.0)
    assert tpir_at_fpir(found, 0.1) is None, "two probes cannot resolve one in ten"


def test_embeddings_that_are_all_equal_find_nobody() -> None:
    rows = torch.eye(4)[torch.zeros(6, dtype=torch.int64)]
    found = search(rows, rows, torch.arange(6), torch.arange(6), kept=5)
    assert cumulative_match(found, 5) == [0.0] * 5


def test_a_probe_is_not_compared_with_itself() -> None:
    """Of the gallery it is taken from: rank-1 leave one out, as a plain loop has it."""
    unit_ND, labels_N = some_rows(30, 3, ties=False), torch.arange(30) % 8
    labels_N[29] = 99  # an identity with one picture is no probe
    found = search(unit_ND, unit_ND, labels_N, labels_N, kept=3, excluded_P=torch.arange(30))
    scores = plain_scores(unit_ND, unit_ND)
    for probe in range(30):
        others = [at for at in range(30) if at != probe]
        (mate, rest), *_ = plain_search(
            [[scores[probe][at] for at in others]], [int(labels_N[probe])], labels_N[others].tolist()
        )
        assert int(found.mate_P[probe]) == mate
        assert found.others_PK[probe].tolist() == rest[:3]
    assert int(found.mate_P[29]) == NOTHING


@cases
@pytest.mark.usefixtures("_tile")
def test_distractors_are_swept_as_a_plain_loop_does(seed: int, ties: bool) -> None:
    probe_PD, distractor_GD = some_rows(20, seed, ties), some_rows(33, seed + 7, ties)
    others_PK, counts = against_distractors(probe_PD, distractor_GD, kept=6)
    scores = plain_scores(probe_PD, distractor_GD)
    assert others_PK.tolist() == [sorted(row, reverse=True)[:6] for row in scores]
    every = torch.tensor([score for row in scores for score in row])
    assert torch.equal(counts, torch.bincount(every, minlength=SCORE_BINS))


def test_a_small_gallery_leaves_places_empty_and_an_empty_one_all() -> None:
    found = search(torch.eye(3), torch.eye(3)[:1], torch.arange(3), torch.tensor([0]), kept=2)
    assert found.mate_P.tolist() == [SCORE_BINS - 1, NOTHING, NOTHING]
    assert found.others_PK.tolist() == [[NOTHING] * 2, [STEPS_PER_UNIT, NOTHING], [STEPS_PER_UNIT, NOTHING]]
    none = search(torch.eye(3), torch.empty(0, 3), torch.arange(3), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="no probe has a mate"):
        cumulative_match(none, 1)
    with pytest.raises(ValueError, match="no probe has a mate"):
        tpir_at_fpir(none, 0.5)
    assert search(torch.empty(0, 3), torch.eye(3), torch.empty(0, dtype=torch.int64), torch.arange(3)).mate_P.shape == (
        0,
    )


@pytest.mark.parametrize("fpir", [0.0, 1.5, math.nan])
def test_rates_and_ranks_that_cannot_be_are_refused(fpir: float) -> None:
    found = search(torch.eye(3), torch.eye(3), torch.arange(3), torch.arange(3), kept=2)
    with pytest.raises(ValueError, match="expected a rate"):
        tpir_at_fpir(found, fpir)
    with pytest.raises(ValueError, match="ranks = 3: expected 1 to 2"):
        cumulative_match(found, 3)


def test_genuine_pairs_are_all_pairs_of_one_label_once() -> None:
    labels = torch.tensor([4, 1, 4, 9, 1, 4])
    expected = {(i, j) for i in range(6) for j in range(i + 1, 6) if labels[i] == labels[j]}
    assert {tuple(sorted(pair)) for pair in genuine_pairs(labels).tolist()} == expected
    assert len(genuine_pairs(labels)) == len(expected)
    assert genuine_pairs(torch.arange(3)).shape == (0, 2)
    assert genuine_pairs(torch.tensor([1, 1, 1, 1, 1, 2, 2]), most_of_label=3).tolist() == [
        [0, 2],
        [0, 4],
        [2, 4],
        [5, 6],
    ]
