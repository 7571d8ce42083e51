"""Evaluation as a run does it: a real backbone, several ranks, one answer."""

from __future__ import annotations

import json

import pytest
import torch
from simulation import on_ranks
from torch import Tensor, nn

from partial_fc.embedding import embed, gathered
from partial_fc.evaluation import Evaluation, evaluate, evaluate_pairs
from partial_fc.functional import identification, pair_scores
from partial_fc.functional.quality import error_against_rejection
from partial_fc.functional.rates import FARS
from partial_fc.world import World


def some_embeddings(images: int = 60, identities: int = 12, spread: float = 0.6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.arange(images) % identities
    rows_ND = torch.randn(identities, 16, generator=generator)[labels_N]
    rows_ND = rows_ND + spread * torch.randn(images, 16, generator=generator)
    return torch.nn.functional.normalize(rows_ND, dim=1), labels_N


def on_shares(counts: list[int], pairs_P2: Tensor | None = None) -> list[Evaluation]:
    unit_ND, labels_N = some_embeddings()
    units, labels = torch.split(unit_ND, counts), torch.split(labels_N, counts)
    shares = list(zip(units, labels, strict=True))
    return on_ranks(len(counts), lambda world: evaluate(*gathered(*shares[world.rank], world), world, pairs_P2))


@pytest.mark.parametrize("counts", [[60], [31, 29], [20, 37, 3], [60, 0]])
def test_the_answer_is_the_same_on_every_rank_and_for_every_number_of_ranks(
    counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_scores, "ROWS_PER_TILE", 16)
    alone = evaluate(*some_embeddings(), World())
    assert on_shares(counts) == [alone] * len(counts)
    assert 0 < alone.eer < 0.5


def test_a_rank_without_images_may_not_know_the_width_of_an_embedding() -> None:
    unit_ND, labels_N = some_embeddings()
    units, labels = [unit_ND, torch.empty(0, 0)], [labels_N, labels_N[:0]]
    shares = list(zip(units, labels, strict=True))
    results = on_ranks(2, lambda world: evaluate(*gathered(*shares[world.rank], world), world))
    assert results == [evaluate(unit_ND, labels_N, World())] * 2


def test_perfect_embeddings_are_perfect_in_every_measure() -> None:
    labels_N = torch.arange(40) % 8
    result = evaluate(torch.eye(8)[labels_N], labels_N, World())
    assert (result.rank1, result.eer, result.best_accuracy) == (1.0, 0.0, 1.0)
    assert set(result.tar_at_far.values()) == {1.0}


def test_equal_embeddings_are_worth_nothing() -> None:
    result = evaluate(torch.tensor([[0.6, 0.8]]).repeat(40, 1), torch.arange(40) % 8, World())
    assert (result.rank1, result.eer, result.best_accuracy) == (0.0, 0.5, 0.5)
    assert set(result.tar_at_far.values()) == {0.0}


def test_a_backbone_that_gives_zeros_is_worth_nothing_and_stops_no_run() -> None:
    result = evaluate(torch.zeros(40, 8), torch.arange(40) % 8, World())
    assert (result.rank1, result.eer) == (0.0, 0.5)


def test_random_embeddings_are_near_chance() -> None:
    rows_ND = torch.randn(400, 32, generator=torch.Generator().manual_seed(0))
    result = evaluate(torch.nn.functional.normalize(rows_ND, dim=1), torch.arange(400) % 100, World())
    assert 0.45 < result.eer < 0.55
    assert result.rank1 < 0.05
    assert result.tar_at_far["1e-1"] == pytest.approx(0.1, abs=0.05)


def test_counts_say_what_the_measures_rest_on() -> None:
    unit_ND, _ = some_embeddings(images=10)
    labels_N = torch.tensor([4, 4, 4, 9, 9, 1, 2, 3, 5, 6])
    counts = evaluate(unit_ND, labels_N, World()).counts
    assert counts.pop("rank1_hits") <= 5
    assert counts == {"identities": 7, "images": 10, "rank1_probes": 5, "genuine_pairs": 4, "impostor_pairs": 41}


def test_only_fars_that_the_impostor_pairs_can_resolve_are_reported() -> None:
    result = evaluate(*some_embeddings(), World())  # 60 * 59 / 2 - 12 * 10 = 1650 impostor pairs
    assert list(result.tar_at_far) == list(result.threshold_at_far) == ["1e-1", "1e-2", "1e-3"]
    assert result.operating_far == "1e-3"
    assert result.operating_threshold == result.threshold_at_far["1e-3"]


def test_with_a_handful_of_pairs_the_report_falls_back_on_the_equal_error_rate() -> None:
    result = evaluate(torch.eye(3)[[0, 0, 1]], torch.tensor([0, 0, 1]), World())
    assert result.tar_at_far == {}
    assert result.operating_far is None
    assert result.operating_threshold == result.eer_threshold


def test_json_survives_the_round_trip_and_has_the_promised_keys() -> None:
    result = evaluate(*some_embeddings(), World())
    content = result.to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content.keys() >= {"rank1", "eer", "tar_at_far", "counts"}
    assert set(content["tar_at_far"]) <= set(FARS)
    assert "kfold_accuracy" not in content
    assert sum(content["histograms"]["genuine"]) == content["counts"]["genuine_pairs"]
    assert sum(content["histograms"]["impostor"]) == content["counts"]["impostor_pairs"]


def test_the_cumulative_match_begins_with_rank_1_and_is_the_same_on_any_number_of_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identification, "PROBES_PER_TILE", 7)
    unit_ND, labels_N = some_embeddings(spread=1.2)
    labels_N[0] = 99  # an identity with one picture
    results = on_ranks(3, lambda world: evaluate(unit_ND, labels_N, world).cmc)
    assert results == [evaluate(unit_ND, labels_N, World()).cmc] * 3
    assert results[0][0] == evaluate(unit_ND, labels_N, World()).rank1
    ranks = []
    for probe in (labels_N != 99).nonzero().flatten().tolist():
        score_N = [float(unit_ND[probe].double() @ other.double()) for other in unit_ND]
        same_N = [bool(label == labels_N[probe]) for label in labels_N]
        mate = max(score for at, score in enumerate(score_N) if same_N[at] and at != probe)
        ranks.append(1 + sum(score >= mate for at, score in enumerate(score_N) if not same_N[at]))
    assert results[0] == [sum(rank <= k for rank in ranks) / len(ranks) for k in range(1, 21)]


def test_errors_against_the_share_rejected_are_those_of_the_genuine_pairs_at_the_operating_threshold() -> None:
    unit_ND, labels_N = some_embeddings(spread=1.2)
    norm_N = torch.rand(60, generator=torch.Generator().manual_seed(4))
    found = evaluate(unit_ND, labels_N, World(), norm_N=norm_N)
    pairs = [(i, j) for i in range(60) for j in range(i) if labels_N[i] == labels_N[j]]
    wrong = [float(unit_ND[i].double() @ unit_ND[j].double()) < found.operating_threshold - 1e-6 for i, j in pairs]
    quality = torch.tensor([float(min(norm_N[i], norm_N[j])) for i, j in pairs])
    assert found.rejection == error_against_rejection(torch.tensor(wrong), quality)
    assert found.rejection[0] == (0.0, 1 - found.tar_at_far["1e-3"])
    pairs_P2 = torch.combinations(torch.arange(60))
    same_P = labels_N[pairs_P2[:, 0]] == labels_N[pairs_P2[:, 1]]
    assert evaluate_pairs(unit_ND, pairs_P2, same_P, norm_N=norm_N).rejection == found.rejection
    assert evaluate(unit_ND, labels_N, World()).rejection == [], "lengths are not known"


def test_a_pair_list_is_scored_by_folds_on_every_rank() -> None:
    pairs_P2 = torch.combinations(torch.arange(60))[::7]
    results = on_shares([25, 35], pairs_P2)
    assert results[0] == results[1]
    kfold = results[0].to_json()["kfold_accuracy"]
    assert 0.5 < kfold["mean"] <= 1.0
    assert kfold["std"] > 0
    assert kfold["standard_error"] == pytest.approx(kfold["std"] / 3)  # of ten folds


def test_pairs_without_labels_have_the_measures_that_the_same_pairs_have_with_them() -> None:
    unit_ND, labels_N = some_embeddings()
    every_P2 = torch.combinations(torch.arange(60))
    labelled = evaluate(unit_ND, labels_N, World(), every_P2)
    listed = evaluate_pairs(unit_ND, every_P2, labels_N[every_P2[:, 0]] == labels_N[every_P2[:, 1]])
    ours, theirs = listed.to_json(), labelled.to_json()
    assert ours.pop("counts") == {"images": 60, "genuine_pairs": 120, "impostor_pairs": 1650}
    assert ours == {name: theirs[name] for name in ours}
    assert list(ours["tar_at_far"]) == ["1e-1", "1e-2", "1e-3"]
    assert json.loads(json.dumps(ours, allow_nan=False)) == ours


def test_pairs_of_one_kind_only_too_few_for_the_folds_or_of_rows_that_are_none_are_refused() -> None:
    pairs_P2, same_P = torch.tensor([[0, 1], [2, 3]]), torch.tensor([True, False])
    assert evaluate_pairs(torch.eye(4)[[0, 0, 1, 2]], pairs_P2, same_P, torch.arange(2)).best_accuracy == 1.0
    with pytest.raises(ValueError, match="expected some of both"):
        evaluate_pairs(torch.eye(4), pairs_P2, torch.tensor([True, True]))
    with pytest.raises(ValueError, match="folds = 10 for 2 pairs"):
        evaluate_pairs(torch.eye(4), pairs_P2, same_P)
    with pytest.raises(ValueError, match="expected finite rows of length 1"):
        evaluate_pairs(2 * torch.eye(4), pairs_P2, same_P)


@pytest.mark.parametrize(
    ("images", "labels"), [(0, []), (3, [0, 1, 2]), (3, [5, 5, 5])], ids=["none", "all different", "all the same"]
)
def test_a_set_without_both_kinds_of_pairs_is_refused(images: int, labels: list[int]) -> None:
    with pytest.raises(ValueError, match="expected some of both"):
        evaluate(torch.eye(4)[:images], torch.tensor(labels, dtype=torch.int64), World())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 2.0])
def test_embeddings_that_are_no_unit_rows_are_refused_on_every_rank(bad: float) -> None:
    unit_ND, labels_N = some_embeddings()
    unit_ND[0, 0] = bad

    def message(world: World) -> str:
        share = slice(0, 30) if world.rank == 0 else slice(30, 60)
        with pytest.raises(ValueError, match="expected finite rows of length 1") as error:
            evaluate(*gathered(unit_ND[share], labels_N[share], world), world)
        return str(error.value)

    assert len(set(on_ranks(2, message))) == 1


def small_backbone() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 5)]
    return nn.Sequential(*layers)


def some_batches(flip: bool = False) -> list[tuple[Tensor, Tensor]]:
    images = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(10, dtype=torch.int32).reshape(-1, 1)
    parts = zip(torch.split(images, 4), torch.split(labels, 4), strict=True)
    return [(part.flip(-1) if flip else part, of) for part, of in parts]


cpu = torch.device("cpu")


def test_embeddings_are_unit_rows_of_the_backbone_in_evaluation_mode() -> None:
    backbone = small_backbone()
    unit_nD, labels_n, norm_n = embed(backbone, some_batches(), cpu)
    backbone.eval()
    with torch.no_grad():
        rows_nD = backbone(torch.cat([images for images, _ in some_batches()]))
    torch.testing.assert_close(unit_nD, torch.nn.functional.normalize(rows_nD, dim=1))
    torch.testing.assert_close(norm_n, rows_nD.norm(dim=1))
    assert not unit_nD.requires_grad
    assert labels_n.tolist() == list(range(10))
    assert labels_n.dtype == torch.int64


def test_training_goes_on_as_it_was_even_after_an_error() -> None:
    backbone = small_backbone().train()
    backbone.get_submodule("1").eval()  # a frozen layer stays frozen
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    embed(backbone, some_batches(), cpu)
    with pytest.raises(RuntimeError):
        embed(backbone, [(torch.zeros(1, 3, 2, 2), torch.zeros(1))], cpu)
    assert [module.training for module in backbone.modules()] == [True, True, False, True, True, True]
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_mirrored_image_has_the_same_embedding_when_both_views_are_added() -> None:
    backbone = small_backbone()
    both, _, _ = embed(backbone, some_batches(), cpu, flip=True)
    mirrored, _, _ = embed(backbone, some_batches(flip=True), cpu, flip=True)
    single, _, _ = embed(backbone, some_batches(), cpu)
    torch.testing.assert_close(both, mirrored)
    assert not torch.allclose(both, single)


def test_autocast_embeddings_come_back_as_unit_rows_in_float32() -> None:
    exact, _, _ = embed(small_backbone(), some_batches(), cpu)
    half, _, _ = embed(small_backbone(), some_batches(), cpu, autocast_dtype=torch.bfloat16)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.norm(dim=1), torch.ones(10))
    assert 0 < (half - exact).abs().max() < 0.05


def test_a_rank_without_batches_embeds_nothing() -> None:
    unit_nD, labels_n, norm_n = embed(small_backbone(), [], cpu)
    assert unit_nD.shape == (0, 0)
    assert labels_n.shape == norm_n.shape == (0,)


def test_a_row_of_zeros_has_no_length() -> None:
    unit_nD, _, norm_n = embed(nn.Flatten(), [(torch.zeros(2, 3, 2, 2), torch.zeros(2))], cpu)
    assert norm_n.tolist() == [0.0, 0.0]
    assert not unit_nD.any()
