"""The near road: one look at all classes, then few pairs; held against the block road and the whole matrix."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given as any_of
from hypothesis import settings
from hypothesis import strategies as some
from problems import Problem, by_ranks, by_whole_matrix, cases, error, problem, trained
from simulation import on_ranks
from torch import Tensor

from partial_fc import AdaCos, P2SGrad, RowAdamW, RowOptimizer, RowSGD, ShardedClassifier, World
from partial_fc.functional.cosine import unit_rows
from partial_fc.functional.look import Quantised, least_int8_products, least_product, quantised, reaching
from partial_fc.functional.p2sgrad import chance_cosine
from partial_fc.sweeps import near_sweep
from partial_fc.sweeps.near_sweep import NearSweep

C, D = 60, 24
LOSSES = ["p2sgrad_beyond_chance_fading", "p2sgrad_beyond_chance_steady"]
ROADS = ("auto", "never")


@pytest.fixture(autouse=True)
def as_many_pairs_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """In so few dimensions many classes lie beyond chance."""
    monkeypatch.setattr(near_sweep, "MOST_CANDIDATES", 1.0)


def head_of(num_classes: int = C, dim: int = D, **options: Any) -> ShardedClassifier:
    objective = P2SGrad(negatives="beyond_chance", chance_multiple=0.5)
    return ShardedClassifier(num_classes, dim, objective, **{"world": World(), **options})


def batches_of(steps: int, size: int = 20) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(size, D, dtype=torch.float64), torch.randint(C, (size,))) for _ in range(steps)]


@pytest.mark.usefixtures("_every_look")
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("block_classes", [1, 7, 1000])
def test_the_near_road_is_the_block_road_and_the_whole_matrix_to_float64_rounding(
    name: str, size: int, block_classes: int
) -> None:
    given, case = problem(C, D, (9, 6)), cases(C, D)[name]
    truths = by_whole_matrix(case, given)
    for road in ROADS:
        for found, truth in zip(
            by_ranks(case, given, size, block_classes=block_classes, near=road), truths, strict=True
        ):
            assert max(error(*pair) for pair in zip(found, truth, strict=True)) < 1e-12


@pytest.mark.usefixtures("_every_look")
@pytest.mark.parametrize("dim", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 2, 130])
def test_it_is_so_in_few_dimensions_and_for_batches_of_any_size(size: int, dim: int) -> None:
    given = torch.randn(size, dim, dtype=torch.float64), torch.randint(3, (size,))
    found = []
    for road in ROADS:
        objective = P2SGrad(negatives="beyond_chance", chance_multiple=0.3)
        head = ShardedClassifier(3, dim, objective, world=World(), near=road, row_optimizer=RowSGD(0.1, 0.9)).double()
        found.append([*trained(head, [given, given]), head.weight.detach()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.fixture(params=[torch.int8, None], ids=["int8", "product dtype"])
def _every_look(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_sweep, "look_dtype", lambda product_dtype: request.param or product_dtype)


@pytest.mark.usefixtures("_every_look")
@pytest.mark.parametrize("product_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_whatever_the_look_is_made_in_the_result_is_that_of_float32(
    product_dtype: torch.dtype, weight_dtype: torch.dtype
) -> None:
    given = problem(300, 64, (50,), near=1.0)
    rows_CD = given.rows_CD.to(weight_dtype).double()
    given = Problem(rows_CD, [(x.float().double(), y) for x, y in given.batches])
    case = cases(300, 64)[LOSSES[0]]
    (truth,) = by_whole_matrix(case, given)
    (found,) = by_ranks(case, given, 2, dtype=torch.float32, product_dtype=product_dtype, block_classes=64)
    assert max(error(*pair) for pair in zip(found, truth, strict=True)) < 2e-6


@pytest.mark.parametrize(
    "make",
    [lambda: RowSGD(0.1, 0.9, 0.01), lambda: RowAdamW(0.1), lambda: RowSGD(0.1, 0.9, clip=0.3)],
    ids=["sgd", "adamw", "clipped"],
)
@pytest.mark.parametrize("rate", [1.0, 0.4])
@pytest.mark.parametrize("size", [1, 3])
def test_rows_and_optimizer_state_are_those_of_the_block_road(make: Any, rate: float, size: int) -> None:
    """Also over steps in which a row has no slope: it then keeps weight and state."""
    given = batches_of(4)

    def work(road: str) -> list[dict[str, Tensor]]:
        def rank(world: World) -> dict[str, Tensor]:
            head = head_of(world=world, near=road, sample_rate=rate, row_optimizer=make()).double()
            trained(head, [(x.tensor_split(size)[world.rank], y.tensor_split(size)[world.rank]) for x, y in given])
            return {name: value for name, value in head.state_dict().items() if isinstance(value, Tensor)}

        return on_ranks(size, rank)

    for near, blocks in zip(*map(work, ROADS), strict=True):
        for name, value in blocks.items():
            torch.testing.assert_close(near[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rate", [1.0, 0.4], ids=["all classes", "drawn classes"])
@pytest.mark.parametrize("most", [1.0, 0.0], ids=["few rows", "by blocks"])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_kept_in_int8_are_those_of_the_rows_as_they_stand(
    weight_dtype: torch.dtype, most: float, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each step, whichever road it took, and after another hand has changed the rows."""
    monkeypatch.setattr(near_sweep, "look_dtype", lambda product_dtype: torch.int8)
    monkeypatch.setattr(near_sweep, "MOST_CANDIDATES", most)
    head = head_of(row_optimizer=RowSGD(0.1, 0.9), sample_rate=rate, weight_dtype=weight_dtype, block_classes=7)

    def kept() -> Quantised | None:
        return head._known_rows.known(head.weight, may_retract=False).int8

    for x, y in batches_of(3):
        trained(head, [(x.float(), y)])
        rows_CD = head.weight.detach()
        unit_CD = rows_CD if weight_dtype == torch.float32 else unit_rows(rows_CD.float())[0]
        for found, truth in zip(kept() or (), quantised(unit_CD), strict=True):
            assert torch.equal(found, truth)
    with torch.no_grad():
        head.weight[5] *= -1
    assert kept() is None
    trained(head, [(x.float(), y) for x, y in batches_of(1)])
    assert kept() is not None
    head.objective = AdaCos(C)  # as a stage may: what no look needs any more is let go
    trained(head, [(x.float(), y) for x, y in batches_of(1)])
    assert kept() is None


def test_rows_made_int8_for_a_step_that_learns_nothing_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_sweep, "look_dtype", lambda product_dtype: torch.int8)
    head = head_of(row_optimizer=RowSGD(0.1, 0.9))
    x, y = batches_of(1)[0]
    kept = []
    for _ in range(2):
        head(x.float() * math.nan, y)
        kept.append(head._known_rows.known(head.weight, may_retract=False).int8)
    assert kept[0] is not None
    assert kept[0] is kept[1]


def test_rows_kept_in_int8_change_no_bit_and_can_be_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_sweep, "look_dtype", lambda product_dtype: torch.int8)
    heads = [head_of(row_optimizer=RowSGD(0.1, 0.9), cosines=word) for word in ("auto", "recompute")]
    given = [(x.float(), y) for x, y in batches_of(4)]
    losses = [torch.stack(trained(head, given)) for head in heads]
    assert torch.equal(*losses)
    assert torch.equal(*(head.weight for head in heads))
    kept = [head._known_rows.known(head.weight, may_retract=False).int8 for head in heads]
    assert [rows is None for rows in kept] == [False, True]


def test_without_a_row_optimizer_rows_are_made_int8_anew_in_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_sweep, "look_dtype", lambda product_dtype: torch.int8)
    heads = [head_of(near=road) for road in ROADS]
    optimizers = [torch.optim.SGD(head.parameters(), lr=0.5) for head in heads]
    for x, y in batches_of(3):
        for head, optimizer in zip(heads, optimizers, strict=True):
            optimizer.zero_grad()
            head(x.float(), y).backward()
            optimizer.step()
            assert head._known_rows.known(head.weight, may_retract=False).int8 is None
    torch.testing.assert_close(heads[0].weight, heads[1].weight)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("make", [lambda: RowSGD(0.1, 0.9), lambda: RowAdamW(0.1)], ids=["sgd", "adamw"])
def test_a_row_without_a_slope_keeps_weight_and_state(make: Any, road: str) -> None:
    optimizer: RowOptimizer = make()
    head = head_of(row_optimizer=optimizer, near=road)
    trained(head, [(x.float(), y) for x, y in batches_of(2)])
    before = {name: value.clone() for name, value in head.state_dict().items() if isinstance(value, Tensor)}
    embeddings_ND, labels_N = torch.randn(3, D), torch.tensor([4, 9, 9])
    cosines_NC = unit_rows(embeddings_ND)[0] @ head.weight.detach().T
    chance = 0.5 * chance_cosine(C, D)
    moves_C = (cosines_NC > chance).any(dim=0)
    moves_C[labels_N] = True
    trained(head, [(embeddings_ND, labels_N)])
    for name, value in head.state_dict().items():
        if isinstance(value, Tensor) and len(value.shape) and len(value) == C:
            changed_C = (value != before[name]).view(C, -1).any(dim=1)
            assert torch.equal(changed_C, moves_C), name
    assert 3 <= moves_C.sum() < C


@pytest.mark.usefixtures("_every_look")
@pytest.mark.parametrize("product_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("most", [1.0, 1 / 64])
@pytest.mark.parametrize("where", ["embedding", "row"])
@pytest.mark.parametrize("number", [math.nan, -math.nan, math.inf])
def test_what_is_not_finite_gives_such_a_loss_and_moves_no_row(
    number: float, where: str, most: float, product_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_sweep, "MOST_CANDIDATES", most)
    head = head_of(row_optimizer=RowSGD(0.1, 0.9), product_dtype=product_dtype)
    embeddings_ND, labels_N = torch.randn(9, D), torch.randint(C - 1, (9,))
    head(embeddings_ND, labels_N)
    with torch.no_grad():
        (embeddings_ND if where == "embedding" else head.weight)[-1, 3] = number
    before = head.weight.detach().clone()
    loss = head(embeddings_ND.requires_grad_(), labels_N)
    loss.backward()
    assert loss.isnan()
    assert torch.equal(head.weight[:-1], before[:-1])


@pytest.mark.parametrize("road", ROADS)
def test_how_many_are_near_is_told(road: str) -> None:
    head = head_of(near=road)
    embeddings_ND, labels_N = torch.randn(9, D), torch.randint(C, (9,))
    head(embeddings_ND, labels_N)
    near_NC = unit_rows(embeddings_ND)[0] @ head.weight.detach().T > 0.5 * chance_cosine(C, D)
    near_NC.scatter_(1, labels_N[:, None], False)
    assert head.statistics["near_per_image"].item() == pytest.approx(near_NC.sum(dim=1).double().mean().item())


def test_more_pairs_than_fit_go_the_block_road(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in early training, or when all embeddings lie in one cone."""
    given = problem(C, D, (40,), near=1.0)
    cone = Problem(given.rows_CD.abs(), [(x.abs(), y) for x, y in given.batches])
    monkeypatch.setattr(near_sweep, "MOST_CANDIDATES", 1 / 64)
    went_on: list[bool] = []
    look = NearSweep._candidates

    def watched(sweep: NearSweep, above: float) -> Any:
        pairs = look(sweep, above)
        went_on.append(pairs is not None)
        return pairs

    monkeypatch.setattr(NearSweep, "_candidates", watched)
    case = cases(C, D)[LOSSES[0]]
    (truth,), (found,) = by_whole_matrix(case, cone), by_ranks(case, cone, 2, block_classes=7)
    assert went_on == [False, False]
    assert max(error(*pair) for pair in zip(found, truth, strict=True)) < 1e-12


@pytest.mark.parametrize("road", ROADS)
def test_sums_and_gradients_over_drawn_classes_are_right_on_average(road: str) -> None:
    """A drawn class counts 1/rate times, one of the batch's own once: the mean over draws is that of all classes."""
    torch.manual_seed(0)
    embeddings_ND, labels_N = torch.randn(30, D, dtype=torch.float64), torch.randint(C // 2, (30,))

    def step(rate: float, seed: int) -> tuple[Tensor, ...]:
        head = head_of(near=road, sample_rate=rate, seed=seed).double()
        head.weight.data = rows_CD.clone()
        leaf_ND = embeddings_ND.clone().requires_grad_()
        loss = head(leaf_ND, labels_N)
        return loss.detach(), head.statistics["near_per_image"], *torch.autograd.grad(loss, (leaf_ND, head.weight))

    rows_CD = torch.randn(C, D, dtype=torch.float64)
    truths = step(1.0, 0)
    draws = [torch.stack(parts) for parts in zip(*(step(0.5, seed) for seed in range(400)), strict=True)]
    for truth, drawn in zip(truths, draws, strict=True):
        deviations = (drawn.mean(dim=0) - truth).abs() / (drawn.std(dim=0) / math.sqrt(len(drawn)) + 1e-12)
        assert deviations.max() < 5.5, "standard deviations of the mean"
        assert error(drawn.mean(dim=0), truth) < 0.1


@any_of(
    above=some.floats(0.02, 0.9),
    dim=some.sampled_from([1, 2, 3, 16, 64, 500]),
    dtype=some.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int8]),
    spread=some.sampled_from([0.0, 4.0]),
    seed=some.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_no_pair_beyond_a_cosine_has_a_product_below_the_bound(
    above: float, dim: int, dtype: torch.dtype, spread: float, seed: int
) -> None:
    """Unit vectors at cosines just above ``above``, rounded and multiplied in every dtype; also of few dimensions."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.promote_types(dtype, torch.float32)
    lengths_D = torch.exp(spread * torch.randn(dim, dtype=torch.float64, generator=generator))
    x_mD = unit_rows(torch.randn(256, dim, dtype=torch.float64, generator=generator) * lengths_D)[0]
    other_mD = torch.randn(256, dim, dtype=torch.float64, generator=generator)
    tangent_mD = unit_rows(other_mD - (other_mD * x_mD).sum(1, keepdim=True) * x_mD)[0]
    cosine = above + (1 - above) * torch.rand(256, 1, dtype=torch.float64, generator=generator) ** 8 * 0.02
    w_mD = cosine * x_mD + (1 - cosine**2).sqrt() * tangent_mD
    x_mD, w_mD = (unit_rows(unit_mD.to(wide))[0] for unit_mD in (x_mD, w_mD))
    exact_m = (x_mD.double() * w_mD.double()).sum(dim=1)
    if dtype == torch.int8:
        x, w = quantised(x_mD, have_one_step=True), quantised(w_mD)
        product_mm = w.integers.int() @ x.integers.int().T
        found_m = product_mm.diagonal() >= least_int8_products(above, x, w)
    else:
        product_mm = x_mD.to(dtype) @ w_mD.to(dtype).T
        found_m = product_mm.diagonal() >= least_product(above, dim, dtype)
    assert found_m[exact_m > above].all()


@pytest.mark.parametrize("have_one_step", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dim", [1, 24, 500])
def test_int8_factors_are_off_by_no_more_than_they_say_and_hardly_less(
    dim: int, dtype: torch.dtype, have_one_step: bool
) -> None:
    for vectors_mD in (torch.randn(300, dim), torch.zeros(2, dim), torch.randn(300, dim).exp()):
        unit_mD = unit_rows(vectors_mD.to(dtype))[0]
        rounded = quantised(unit_mD, have_one_step=have_one_step)
        off_m = (unit_mD.double() - rounded.steps.double().unsqueeze(1) * rounded.integers.double()).norm(dim=1)
        assert (off_m <= rounded.errors).all()
        assert (rounded.errors <= 1.01 * off_m + 1e-6).all()
        assert not have_one_step or (rounded.steps == rounded.steps[0]).all()


def test_int8_factors_of_what_is_not_finite_are_off_by_any_length() -> None:
    vectors_mD = unit_rows(torch.randn(4, D))[0]
    vectors_mD[0, 3], vectors_mD[1, 3], vectors_mD[2, 3] = math.nan, math.inf, -math.inf
    rows = quantised(vectors_mD)
    assert rows.errors.isinf().tolist() == [True, True, True, False]
    batch = quantised(vectors_mD[3:], have_one_step=True)
    least_m = least_int8_products(0.5, batch, rows)
    assert (least_m == torch.iinfo(torch.int32).min).tolist() == [True, True, True, False]
    least_m = least_int8_products(0.5, quantised(vectors_mD, have_one_step=True), batch)
    assert least_m.tolist() == [torch.iinfo(torch.int32).min]


@pytest.mark.parametrize("images", [1, 17, 128, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32], ids=str)
@pytest.mark.parametrize("least", [-3.0, 0.0, 5.0, 1000.0])
def test_what_reaches_its_bound_is_found(least: float, dtype: torch.dtype, images: int) -> None:
    product_bN = (10 * torch.randn(30, images)).to(dtype)
    least_b = (least + 3 * torch.rand(30)).to(dtype)
    found = torch.zeros(30, images, dtype=torch.int64)
    found.index_put_(reaching(product_bN, least_b), torch.tensor(1), accumulate=True)
    assert torch.equal(found, (product_bN >= least_b.unsqueeze(1)).long())


def test_the_bound_in_float32_is_next_to_the_cosine_and_in_bfloat16_a_hundredth_below() -> None:
    assert 0.2 - least_product(0.2, 512, torch.float32) < 1e-4
    assert 0.2 - least_product(0.2, 512, torch.bfloat16) < 0.01


def test_few_dimensions_for_many_classes_are_refused_when_the_classifier_is_made() -> None:
    with pytest.raises(ValueError, match=r"1,000,000 classes in 27 dimensions .* expected more than 27 dimensions"):
        ShardedClassifier(1_000_000, 27, P2SGrad(negatives="beyond_chance"), world=World())
    assert chance_cosine(1_000_000, 28) < 1
