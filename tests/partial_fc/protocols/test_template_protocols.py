"""IJB's protocols from templates against plain loops, on any number of ranks."""

from __future__ import annotations

import json

import pytest
import torch
from simulation import on_ranks
from torch import Tensor

from partial_fc.evaluation import evaluate_pairs
from partial_fc.functional.identification import cumulative_match, search, tpir_at_fpir
from partial_fc.protocols.templates import identify, mean_of_galleries, verify_templates
from partial_fc.world import World


def some_templates(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit rows near the centres of their subjects, of which each has about five."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(rows // 5, 12, generator=torch.Generator().manual_seed(99))
    subject_T = torch.arange(rows) % (rows // 5)
    noise = torch.randn(rows, 12, generator=generator)
    return torch.nn.functional.normalize(centres[subject_T] + 0.8 * noise, dim=1), subject_T


@pytest.mark.parametrize("ranks", [1, 3])
def test_chunks_of_pairs_have_the_measures_of_all_pairs_at_once(ranks: int) -> None:
    unit_TD, subject_T = some_templates(60)
    pairs_P2 = torch.combinations(torch.arange(60))
    same_P = subject_T[pairs_P2[:, 0]] == subject_T[pairs_P2[:, 1]]
    chunks = list(zip(*(torch.split(part, 100) for part in (*pairs_P2.unbind(1), same_P)), strict=True))
    found = on_ranks(ranks, lambda world: verify_templates(unit_TD, chunks[world.rank :: world.size], world).to_json())
    expected = evaluate_pairs(unit_TD, pairs_P2, same_P).to_json()
    for each in found:
        assert each.pop("counts") == {"templates": 60, "genuine_pairs": int(same_P.sum()), "impostor_pairs": 1650}
        assert each == {name: expected[name] for name in each}
        assert list(each["tar_at_far"]) == ["1e-1", "1e-2", "1e-3"]
        assert json.loads(json.dumps(each, allow_nan=False)) == each


def test_pairs_of_one_kind_and_rows_that_are_not_finite_are_refused() -> None:
    pair = (torch.tensor([0]), torch.tensor([1]), torch.tensor([True]))
    with pytest.raises(ValueError, match="1 genuine and 0 impostor pairs"):
        verify_templates(torch.eye(2), [pair], World())
    with pytest.raises(ValueError, match="1 of 2 embeddings cannot be compared, the first in row 1 of length nan"):
        verify_templates(torch.tensor([[1.0, 0.0], [torch.nan, 0.0]]), [pair], World())
    with pytest.raises(ValueError, match="in row 2 of length nan"):
        identify(torch.eye(2), torch.full((1, 2), torch.nan), torch.arange(2), torch.tensor([0]), World())


@pytest.mark.parametrize("ranks", [1, 3])
def test_both_galleries_and_their_mean(ranks: int) -> None:
    probe_QD, probe_subject_Q = some_templates(300)
    gallery_GD, subject_G = some_templates(300, seed=1)
    gallery_GD, subject_G = gallery_GD[:60], subject_G[:60]  # one template of each subject
    halves = {"G1": subject_G < 30, "G2": subject_G >= 30}

    def measured(world: World) -> dict[str, object]:
        found = {
            name: identify(probe_QD, gallery_GD[half], probe_subject_Q, subject_G[half], world)
            for name, half in halves.items()
        }
        return {name: each.to_json() for name, each in [*found.items(), ("mean", mean_of_galleries(found))]}

    found = on_ranks(ranks, measured)
    assert found == [found[0]] * ranks
    expected = []
    for half in halves.values():
        each = search(probe_QD, gallery_GD[half], probe_subject_Q, subject_G[half])
        expected.append((cumulative_match(each, 10), tpir_at_fpir(each, 0.1), tpir_at_fpir(each, 0.01)))
    for (cmc, at_tenth, at_hundredth), name in zip(expected, halves, strict=True):
        one = found[0][name]
        assert isinstance(one, dict)
        assert at_tenth is not None
        assert at_hundredth is not None
        assert one["rank"] == {"1": cmc[0], "5": cmc[4], "10": cmc[9]}
        assert one["tpir_at_fpir"] == {"1e-1": at_tenth[0], "1e-2": at_hundredth[0]}
        assert one["counts"] == {"gallery": 30, "probes_with_mate": 150, "probes_without": 150}
        assert 0.2 < one["rank"]["1"] < one["rank"]["5"] < 1
    mean = found[0]["mean"]
    assert isinstance(mean, dict)
    assert mean["rank"]["1"] == (expected[0][0][0] + expected[1][0][0]) / 2
    assert mean["counts"]["probes_with_mate"] == 300


def test_without_strangers_only_the_closed_set_is_measured() -> None:
    rows = torch.eye(4)
    found = identify(rows, rows, torch.arange(4), torch.arange(4), World())
    assert found.rank == {1: 1.0, 5: 1.0, 10: 1.0}
    assert found.tpir_at_fpir == {}
