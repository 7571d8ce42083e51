"""The protocols on a GPU: what they find on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from partial_fc.evaluation import evaluate, evaluate_pairs
from partial_fc.functional import listed_pairs
from partial_fc.protocols.distractors import among_distractors
from partial_fc.protocols.templates import identify, verify_templates
from partial_fc.world import World

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def some_rows(rows: int, seed: int) -> Tensor:
    centres = torch.randn(60, 24, generator=torch.Generator().manual_seed(99))[torch.arange(rows) % 60]
    noise = torch.randn(rows, 24, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(centres + 1.2 * noise, dim=1)


def measures(device: str) -> list[dict[str, Any]]:
    unit_ND, others_ND = some_rows(600, 0).to(device), some_rows(900, 1).to(device)
    labels_N, norm_N = (torch.arange(600) % 60).to(device), torch.rand(600, generator=torch.Generator().manual_seed(2))
    pairs_P2 = torch.combinations(torch.arange(600))[::7].to(device)
    same_P = labels_N[pairs_P2[:, 0]] == labels_N[pairs_P2[:, 1]]
    half = labels_N < 30
    return [
        evaluate(unit_ND, labels_N, World(), norm_N=norm_N.to(device)).to_json(),
        evaluate_pairs(unit_ND, pairs_P2, same_P, norm_N=norm_N.to(device)).to_json(),
        verify_templates(unit_ND, [(pairs_P2[:, 0], pairs_P2[:, 1], same_P)], World()).to_json(),
        identify(others_ND, unit_ND[half], torch.arange(900).to(device) % 60, labels_N[half], World()).to_json(),
        among_distractors(unit_ND, labels_N, others_ND, World()).to_json(),
    ]


def test_a_gpu_finds_what_a_cpu_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores may differ by one step of 2^-20 where float64 sums end in another last digit: thresholds by as much."""
    monkeypatch.setattr(listed_pairs, "ROWS_PER_BLOCK", 128)
    for here, there in zip(measures("cpu"), measures("cuda"), strict=True):
        assert here.keys() == there.keys()
        for name in (
            "rank",
            "rank1",
            "eer",
            "best_accuracy",
            "tpir_at_fpir",
            "threshold_at_far",
            "tar_at_far",
            "counts",
        ):
            assert there.get(name) == pytest.approx(here.get(name), abs=2e-3), name
        for name in ("cmc", "kfold_accuracy"):
            assert there.get(name, []) == pytest.approx(here.get(name, []), abs=2e-3), name
