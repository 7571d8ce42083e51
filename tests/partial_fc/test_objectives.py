"""Every loss on simulated ranks against the whole matrix, and what each does at its limits."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from problems import Case, Problem, by_ranks, by_whole_matrix, cases, error, problem
from simulation import on_ranks
from torch import Tensor

from partial_fc import (
    AdaCos,
    ArcFace,
    CombinedMargin,
    CosFace,
    CosineSoftmax,
    Objective,
    P2SGrad,
    ShardedClassifier,
    World,
)
from partial_fc.functional import reference
from partial_fc.objectives import OBJECTIVES
from partial_fc.rules import Rule
from partial_fc.slopes import Cosines, Near

C, D = 23, 8
CASES = cases(C, D)
BY_ANGLE = ("arcface", "combined_margin", "combined_margin_filtered")  # their oracles go by arccos
each_loss = pytest.mark.parametrize("name", CASES)


def assert_equal(case: Case, given: Problem, size: int, block_classes: int | None = None) -> None:
    truths, found = by_whole_matrix(case, given), by_ranks(case, given, size, block_classes=block_classes)
    for truth, solution in zip(truths, found, strict=True):
        for expected, got in zip(truth, solution, strict=True):
            assert error(got, expected) < 1e-12


@each_loss
@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("block_classes", [1, 7, 1000])
def test_loss_and_both_gradients_equal_the_whole_matrix(name: str, size: int, block_classes: int) -> None:
    assert_equal(CASES[name], problem(C, D, (9, 6, 11)), size, block_classes)


@each_loss
@pytest.mark.parametrize("size", [1, 3, 30])
def test_targets_listed_in_full_as_on_a_gpu_give_the_same(
    name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("partial_fc.rows.sharding._lists_all", lambda rows: True)
    assert_equal(CASES[name], problem(C, D, (9, 6)), size, 7)


@each_loss
def test_128_ranks_of_which_most_have_no_class_and_no_row_agree_with_one(name: str) -> None:
    assert_equal(CASES[name], problem(C, D, (9, 6)), 128)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1, 3])
def test_no_less_exact_than_the_whole_matrix_in_the_same_dtype(name: str, dtype: torch.dtype, size: int) -> None:
    given = problem(100, 32, (200, 200), near=1.0)
    given = Problem(given.rows_CD.to(dtype).double(), [(x.to(dtype).double(), y) for x, y in given.batches])
    case, tolerance = cases(100, 32)[name], 2 * torch.finfo(dtype).eps
    truths, slow = by_whole_matrix(case, given), by_whole_matrix(case, given, dtype)
    fast = by_ranks(case, given, size, block_classes=7, dtype=dtype)
    for truth, slow_step, fast_step in zip(truths, slow, fast, strict=True):
        for expected, by_slow, by_fast in zip(truth, slow_step, fast_step, strict=True):
            assert error(by_fast, expected) <= error(by_slow, expected) + tolerance


@pytest.mark.parametrize("objective", [CosineSoftmax(64.0), CosFace(64.0, 0.35), AdaCos(100)])
def test_the_softmax_slopes_of_a_row_sum_to_zero_in_float32(objective: Objective) -> None:
    """They do only if P_ij is exact to its last places, the logarithm it is made with (about 40) too."""
    cos_NC, labels_N = torch.rand(50, 100) * 1.2 - 0.5, torch.randint(100, (50,))
    target_N = cos_NC.gather(1, labels_N[:, None])[:, 0]

    def sum_over_negatives(term: Rule) -> Tensor:
        return term(cos_NC.clone()).scatter(1, labels_N[:, None], 0.0).sum(dim=1)

    own_squares, own_near = partial(sum_over_negatives, Rule(torch.square)), lambda above: Near(target_N, target_N)
    slopes = objective(Cosines(100, 99, 32, target_N, lambda own: own, sum_over_negatives, own_squares, own_near))
    slopes_NC = slopes.negatives(cos_NC.clone()).scatter(1, labels_N[:, None], slopes.target_N[:, None])
    relative_N = slopes_NC.double().sum(dim=1).abs() / slopes_NC.double().abs().sum(dim=1)
    assert relative_N.max() < 4 * torch.finfo(torch.float32).eps


@each_loss
def test_a_zero_embedding_has_the_cosine_zero_and_no_gradient(name: str) -> None:
    given = problem(C, D)
    given.batches[0][0][4] = 0.0
    assert_equal(CASES[name], given, 3, 7)
    (solution,) = by_ranks(CASES[name], given, 3)
    assert not solution.grad_embeddings_ND[4].any()


@each_loss
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_cosine_of_exactly_one_or_minus_one(name: str, sign: float) -> None:
    axes_CD = torch.cat([torch.eye(D), -torch.eye(D), torch.randn(C - 2 * D, D)]).double()
    labels_N = torch.arange(D)
    given = Problem(axes_CD, [(sign * axes_CD[labels_N], labels_N)])
    (solution,) = by_ranks(CASES[name], given, 3, block_classes=7)
    (truth,) = by_whole_matrix(CASES[name], given)
    assert error(solution.loss, truth.loss) < 1e-12
    if name not in BY_ANGLE:  # autograd of arccos gives 0/0 there; the next test says what ArcFace gives
        torch.testing.assert_close(solution.grad_embeddings_ND, truth.grad_embeddings_ND, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(solution.grad_rows_CD, truth.grad_rows_CD, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_arcface_pulls_nothing_at_a_target_cosine_of_one_or_minus_one(sign: float) -> None:
    """Without negatives in sight: two opposite classes leave only the target's slope, and its tangent is zero."""
    rows_CD = torch.eye(2, dtype=torch.float64)
    given = Problem(rows_CD, [(sign * rows_CD[:1], torch.tensor([0]))])
    (solution,) = by_ranks(Case(lambda: ArcFace(8.0, 0.5), lambda cos, y: []), given, 1)
    assert solution.loss.isfinite()
    assert solution.grad_embeddings_ND[0, 0] == 0.0
    assert solution.grad_rows_CD.isfinite().all()
    assert not solution.grad_rows_CD[0].any()


@pytest.mark.parametrize(
    "case",
    [
        Case(lambda: CosineSoftmax(16.0), lambda cos, y: [reference.cosine_softmax(cos[0], y[0], 16.0)]),
        Case(lambda: CosFace(64.0, 0.35), lambda cos, y: [reference.cosface(cos[0], y[0], 64.0, 0.35)]),
        Case(lambda: ArcFace(64.0, 0.5), lambda cos, y: [reference.arcface(cos[0], y[0], 64.0, 0.5)]),
        Case(lambda: P2SGrad(1.0, slope_scale=1.0), lambda cos, y: [reference.p2sgrad(cos[0], y[0], 1.0, 1.0)]),
    ],
    ids=["cosine_softmax", "cosface", "arcface", "p2sgrad"],
)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_two_classes(case: Case, size: int) -> None:
    assert_equal(case, problem(2, D), size)


def test_adacos_refuses_two_classes_because_its_scale_would_be_zero() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        AdaCos(2)


@pytest.mark.parametrize("make", [lambda: CosineSoftmax(80.0), lambda: CosFace(80.0, 0.9), lambda: ArcFace(80.0, 1.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("target", "others"), [(1, 1), (1, -1), (-1, 1), (-1, -1), (0, -1)])
def test_a_scale_of_80_neither_overflows_nor_underflows(
    make: Callable[[], CosineSoftmax], dtype: torch.dtype, target: float, others: float
) -> None:
    """Every cosine at an end of its range, so that no exponential is of ordinary size; the loss has a closed form."""
    num_classes = 1000
    rows_CD = torch.zeros(num_classes, 2)
    rows_CD[:, 0] = others
    rows_CD[0] = torch.tensor([target, math.sqrt(1 - target**2)])
    embeddings_ND = torch.tensor([[2.0, 0.0]] * 3)
    objective = make()
    head = ShardedClassifier(num_classes, 2, objective, world=World(), block_classes=64).to(dtype)
    head.weight.data = rows_CD.to(dtype)
    embeddings = embeddings_ND.to(dtype).requires_grad_()
    loss = head(embeddings, torch.zeros(3, dtype=torch.int64))
    loss.backward()
    margined, _ = objective._target(torch.tensor([target], dtype=torch.float64))
    excess = 80.0 * others + math.log(num_classes - 1) - 80.0 * margined
    expected = torch.logaddexp(excess, torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(loss.detach().double(), expected[0], rtol=1e-5, atol=1e-30)
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    assert head.weight.grad is not None
    assert head.weight.grad.isfinite().all()


@pytest.mark.parametrize("statistics", ["current", "previous"])
def test_the_scale_of_adacos_is_equal_on_all_ranks_and_for_any_number_of_them(statistics: str) -> None:
    given = problem(C, D, (9, 6, 11))

    def work(world: World) -> Tensor:
        head = classifier(AdaCos(C, statistics=statistics), given.rows_CD, world)
        for embeddings_ND, labels_N in given.batches:
            head(embeddings_ND.tensor_split(world.size)[world.rank], labels_N.tensor_split(world.size)[world.rank])
        return head.get_buffer("objective.scale")

    (alone,) = on_ranks(1, work)
    scales = on_ranks(3, work)
    assert all(torch.equal(scale, scales[0]) for scale in scales)
    assert error(scales[0], alone) < 1e-12


def test_a_share_of_the_batch_near_a_wrong_class_drives_adacos_up_until_the_cap_stops_it() -> None:
    rows_CD = torch.nn.functional.normalize(torch.randn(200, 64, dtype=torch.float64))
    labels_N = torch.arange(40)
    embeddings_ND = rows_CD[labels_N] + 0.8 * torch.randn(40, 64).double() / 8
    embeddings_ND[:8] = rows_CD[100:108]
    assert_driven_to_the_cap(rows_CD, embeddings_ND, labels_N)


def test_a_collapsed_cone_of_centres_drives_adacos_up_until_the_cap_stops_it() -> None:
    axis_D = torch.nn.functional.one_hot(torch.tensor(0), 128).double()
    rows_CD = 1.2 * axis_D + torch.randn(500, 128).double() / math.sqrt(128)
    embeddings_ND = 1.2 * axis_D + torch.randn(40, 128).double() / math.sqrt(128)
    assert reference.cosines(embeddings_ND, rows_CD).mean() >= 0.5
    assert_driven_to_the_cap(rows_CD, embeddings_ND, torch.arange(40))


def test_too_few_dimensions_for_the_classes_drive_adacos_up_until_the_cap_stops_it() -> None:
    dim, num_classes = 16, 1000
    assert dim < 4 * math.log(num_classes - 1)
    rows_CD, embeddings_ND = torch.randn(num_classes, dim).double(), torch.randn(40, dim).double()
    assert_driven_to_the_cap(rows_CD, embeddings_ND, torch.arange(40))


def test_enough_dimensions_leave_adacos_at_a_fixed_point() -> None:
    dim, num_classes = 256, 1000
    assert dim > 4 * math.log(num_classes - 1)
    rows_CD, embeddings_ND = torch.randn(num_classes, dim).double(), torch.randn(40, dim).double()
    figures = repeated(rows_CD, embeddings_ND, torch.arange(40), AdaCos(num_classes))
    assert all(float(step["scale_capped"]) == 0.0 for step in figures)
    assert float(figures[-1]["scale"]) == pytest.approx(float(figures[-2]["scale"]), rel=1e-6)


def assert_driven_to_the_cap(rows_CD: Tensor, embeddings_ND: Tensor, labels_N: Tensor) -> None:
    """The recurrence without a cap runs away on this batch; the module's ends at the cap, says so, and stays finite."""
    cos_NC, scale = reference.cosines(embeddings_ND, rows_CD), math.sqrt(2) * math.log(len(rows_CD) - 1)
    while scale < 500.0:
        following = reference.adacos_scale(cos_NC, labels_N, scale)
        assert following > scale
        scale = following
    figures = repeated(rows_CD, embeddings_ND, labels_N, AdaCos(len(rows_CD), max_scale=48.0))
    assert float(figures[0]["scale_capped"]) == 0.0
    assert float(figures[-1]["scale_capped"]) == 1.0
    assert float(figures[-1]["scale"]) == 48.0
    assert figures[-1]["loss"].isfinite()


def repeated(
    rows_CD: Tensor, embeddings_ND: Tensor, labels_N: Tensor, objective: Objective, steps: int = 60
) -> list[dict[str, Tensor]]:
    """The figures of ``steps`` forward passes over one batch."""
    head = classifier(objective, rows_CD)
    figures = []
    for _ in range(steps):
        head(embeddings_ND, labels_N)
        figures.append(head.statistics)
    return figures


def classifier(
    objective: Objective, rows_CD: Tensor, world: World | None = None, sample_rate: float = 1.0
) -> ShardedClassifier:
    head = ShardedClassifier(len(rows_CD), rows_CD.shape[1], objective, world=world or World(), sample_rate=sample_rate)
    head = head.to(rows_CD.dtype)
    head.weight.data = rows_CD[head.shard.start : head.shard.stop].clone()
    return head


def test_the_fixed_scale_above_the_cap_is_reported_as_capped() -> None:
    figures = repeated(torch.eye(8), torch.eye(8), torch.arange(8), AdaCos(8, dynamic=False, max_scale=2.0), steps=1)
    assert float(figures[0]["scale"]) == 2.0
    assert float(figures[0]["scale_capped"]) == 1.0


@pytest.mark.parametrize("statistics", ["current", "previous"])
def test_evaluation_leaves_the_scale_of_adacos_alone(statistics: str) -> None:
    given = problem(C, D, (9, 6))
    head = classifier(AdaCos(C, statistics=statistics), given.rows_CD)
    for embeddings_ND, labels_N in given.batches:
        head(embeddings_ND, labels_N)
    before = {name: value for name, value in head.state_dict().items() if isinstance(value, Tensor)}
    before = {name: value.clone() for name, value in before.items()}
    head.eval()
    loss = head(*given.batches[0])
    scale = float(before["objective.scale"])
    assert loss.item() == pytest.approx(_softmax_loss(given, scale), rel=1e-12)
    for name, value in before.items():
        assert torch.equal(head.state_dict()[name], value), name


def _softmax_loss(given: Problem, scale: float) -> float:
    embeddings_ND, labels_N = given.batches[0]
    return float(reference.cosine_softmax(reference.cosines(embeddings_ND, given.rows_CD), labels_N, scale))


@pytest.mark.parametrize("statistics", ["current", "previous"])
def test_adacos_goes_on_from_a_state_dict_as_if_never_interrupted(statistics: str) -> None:
    given = problem(C, D, (9, 6, 11))
    first = classifier(AdaCos(C, statistics=statistics), given.rows_CD)
    for embeddings_ND, labels_N in given.batches[:2]:
        first(embeddings_ND, labels_N)
    second = classifier(AdaCos(C, statistics=statistics), given.rows_CD)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(*given.batches[2]), second(*given.batches[2]))
    assert torch.equal(first.get_buffer("objective.scale"), second.get_buffer("objective.scale"))


def test_a_module_in_bfloat16_does_not_round_the_scale_of_adacos() -> None:
    head = ShardedClassifier(1000, D, AdaCos(1000), world=World())
    before = head.get_buffer("objective.scale").clone()
    head.bfloat16()
    assert head.weight.dtype == torch.bfloat16
    assert torch.equal(head.get_buffer("objective.scale"), before)


def equal_cosines(num_classes: int, dim: int, cosine: float) -> Tensor:
    """Class rows that all have this cosine with the first axis, so that any draw of them has the same statistics."""
    around_CD = torch.randn(num_classes, dim, dtype=torch.float64)
    around_CD[:, 0] = 0.0
    around_CD = torch.nn.functional.normalize(around_CD)
    return math.sqrt(1 - cosine**2) * around_CD + cosine * torch.nn.functional.one_hot(torch.tensor(0), dim).double()


@pytest.mark.parametrize("statistics", ["current", "previous"])
def test_sampling_classes_does_not_lower_the_scale_of_adacos(statistics: str) -> None:
    rows_CD = equal_cosines(300, D, 0.25)
    embeddings_ND, labels_N = torch.eye(D, dtype=torch.float64)[:1].expand(6, D), torch.arange(6)
    scales = []
    for rate in (1.0, 0.1):
        head = classifier(AdaCos(300, statistics=statistics), rows_CD, sample_rate=rate)
        for _ in range(4):
            head(embeddings_ND, labels_N)
        scales.append(head.get_buffer("objective.scale"))
    assert error(scales[1], scales[0]) < 1e-12


def test_sampling_classes_does_not_lower_the_loss_of_p2sgrad() -> None:
    rows_CD = equal_cosines(300, D, 0.25)
    embeddings_ND, labels_N = torch.eye(D, dtype=torch.float64)[:1].expand(6, D), torch.arange(6)
    losses = [classifier(P2SGrad(), rows_CD, sample_rate=rate)(embeddings_ND, labels_N) for rate in (1.0, 0.1)]
    assert error(losses[1].detach(), losses[0].detach()) < 1e-12


@pytest.mark.parametrize(
    ("combined", "single"),
    [
        (CombinedMargin(32.0, 1.0, 0.5, 0.0), ArcFace(32.0, 0.5)),
        (CombinedMargin(32.0, 1.0, 0.0, 0.35), CosFace(32.0, 0.35)),
        (CombinedMargin(32.0, 1.0, 0.0, 0.0), CosineSoftmax(32.0)),
        (CombinedMargin(32.0, 1.0, 0.0, 0.0, filter_above=0.999), CosineSoftmax(32.0)),
    ],
)
def test_one_margin_alone_is_the_loss_that_is_named_after_it(combined: Objective, single: Objective) -> None:
    given, oracle = problem(C, D), CASES["cosface"].losses  # by_ranks does not ask the oracle
    solutions = [by_ranks(Case(partial(copy.copy, made), oracle), given, 2) for made in (combined, single)]
    for found, expected in zip(solutions[0][0], solutions[1][0], strict=True):
        assert error(found, expected) < 1e-12


def test_every_name_in_the_table_makes_an_objective() -> None:
    made = [
        kind(10) if kind is AdaCos else kind(16.0) if kind is CosineSoftmax else kind() for kind in OBJECTIVES.values()
    ]
    assert [type(objective) for objective in made] == list(OBJECTIVES.values())


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: CosineSoftmax(0.0), "scale=0.0"),
        (lambda: CosineSoftmax(80.1), "<= 80"),
        (lambda: CosFace(64.0, 1.0), "margin=1.0"),
        (lambda: ArcFace(64.0, -0.1), "margin=-0.1"),
        (lambda: CombinedMargin(m1=0.9), "m1=0.9"),
        (lambda: CombinedMargin(filter_above=1.0), "filter_above=1.0"),
        (lambda: AdaCos(10, statistics="later"), "'current' or 'previous'"),
        (lambda: AdaCos(10, max_scale=100.0), "max_scale=100.0"),
        (lambda: P2SGrad("even"), "'balanced' or a number"),
        (lambda: P2SGrad(-1.0), "inter_class_weight=-1.0"),
        (lambda: P2SGrad(slope_scale=math.nan), "slope_scale=nan"),
        (lambda: P2SGrad(kappa=0.0), "kappa=0.0"),
    ],
)
def test_a_parameter_out_of_its_range_is_refused(make: Callable[[], Objective], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make()


def test_adacos_for_another_number_of_classes_is_refused() -> None:
    head = ShardedClassifier(10, D, AdaCos(11), world=World())
    with pytest.raises(ValueError, match=r"11.*10"):
        head(torch.randn(2, D), torch.tensor([0, 1]))


@pytest.mark.parametrize("may_fall", [True, False])
def test_a_scale_that_may_not_fall_does_not(may_fall: bool) -> None:
    """Embeddings come nearer to their classes from step to step: the paper's scale falls with the angle."""
    torch.manual_seed(0)
    objective = AdaCos(C, may_fall=may_fall)
    head = ShardedClassifier(C, D, objective, world=World())
    labels_N, noise_ND = torch.randint(C, (200,)), torch.randn(200, D)
    scales = []
    for near in (0.5, 1.0, 2.0, 4.0, 8.0):
        head(noise_ND + near * head.weight.detach()[labels_N], labels_N)
        scales.append(objective.scale.item())
    assert (scales == sorted(scales)) != may_fall
