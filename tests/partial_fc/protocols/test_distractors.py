"""MegaFace's challenges against plain loops, on any number of ranks."""

from __future__ import annotations

import json

import pytest
import torch
from simulation import on_ranks
from torch import Tensor

from partial_fc.functional.pair_scores import STEPS_PER_UNIT
from partial_fc.protocols import distractors
from partial_fc.protocols.distractors import among_distractors
from partial_fc.world import World


def some_case(ties: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Probes of 7 people, one of them with one picture, and 300 distractors; with ties many rows are the same."""
    generator = torch.Generator().manual_seed(5)
    labels_P = torch.tensor([0] * 6 + [1] * 4 + [2] * 2 + [3] * 5 + [4] * 3 + [5] * 2 + [6])
    rows_PD = torch.randn(7, 8, generator=generator)[labels_P] + torch.randn(len(labels_P), 8, generator=generator)
    rows_GD = torch.randn(300, 8, generator=generator)
    if ties:
        rows_PD, rows_GD = rows_PD.sign(), rows_GD.sign()
    return torch.nn.functional.normalize(rows_PD, dim=1), labels_P, torch.nn.functional.normalize(rows_GD, dim=1)


def score(first: Tensor, second: Tensor) -> int:
    return round((min(float(first.double() @ second.double()), 1.0) + 1) * STEPS_PER_UNIT)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("ranks", [1, 3])
def test_every_mate_is_ranked_among_all_distractors(ranks: int, ties: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distractors, "AT_A_TIME", 7)
    probe_PD, labels_P, distractor_GD = some_case(ties)
    places, genuine = [], []
    impostor = [[score(probe, other) for other in distractor_GD] for probe in probe_PD]
    for first in range(len(labels_P)):
        for second in range(len(labels_P)):
            if first != second and labels_P[first] == labels_P[second]:
                genuine.append(score(probe_PD[first], probe_PD[second]))
                places.append(1 + sum(other >= genuine[-1] for other in impostor[first]))
    every = [score for row in impostor for score in row]
    results = on_ranks(ranks, lambda world: among_distractors(probe_PD, labels_P, distractor_GD, world))
    for found in results:
        assert found.cmc == [sum(place <= rank for place in places) / len(places) for rank in range(1, 21)]
        assert found.rank == {rank: found.cmc[rank - 1] for rank in (1, 5, 10)}
        assert found.counts == {
            "probes": 23,
            "distractors": 300,
            "genuine_pairs": len(places) // 2,
            "impostor_pairs": 6900,
            "impostor_pairs_of_cosine_1": sum(each == 2 * STEPS_PER_UNIT for each in every),
        }
        threshold = sorted(every)[-7] + 1  # six of 6,900 may be accepted, the seventh may not
        tar = sum(each >= threshold for each in genuine) / len(genuine)
        assert found.tar_at_far["1e-3"] == tar
        assert found.threshold_at_far["1e-3"] == threshold / STEPS_PER_UNIT - 1
        assert 0 < found.cmc[0] < 1
        content = found.to_json()
        assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_people_with_one_picture_or_no_distractor_leave_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="0 genuine and 9 impostor pairs"):
        among_distractors(torch.eye(3), torch.arange(3), torch.eye(3), World())
    with pytest.raises(ValueError, match="1 genuine and 0 impostor pairs"):
        among_distractors(torch.eye(2), torch.zeros(2, dtype=torch.int64), torch.empty(0, 2), World())
    with pytest.raises(ValueError, match="1 of 1 embeddings cannot be compared"):
        among_distractors(torch.eye(2), torch.zeros(2, dtype=torch.int64), torch.full((1, 2), torch.nan), World())
