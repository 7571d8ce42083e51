"""The sharded classifier around its loss: batches, labels, rows, modes. Its gradients are test_objectives.py's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from problems import Problem, by_whole_matrix, cases, error, problem
from simulation import on_ranks
from torch import Tensor

from partial_fc import AdaCos, ArcFace, CosFace, CosineSoftmax, P2SGrad, RowSGD, ShardedClassifier, World
from partial_fc.labels import LabelCheck
from partial_fc.rows.sampling import initial_rows

C, D = 23, 8


def classifier(world: World | None = None, **options: Any) -> ShardedClassifier:
    return ShardedClassifier(C, D, CosineSoftmax(16.0), world=world or World(), **options)


def batch(size: int = 9) -> tuple[Tensor, Tensor]:
    return torch.randn(size, D), torch.randint(C, (size,))


def snapshot(head: ShardedClassifier) -> dict[str, Any]:
    return copy.deepcopy(head.state_dict())


def assert_same_state(head: ShardedClassifier, before: dict[str, Any]) -> None:
    for name, value in head.state_dict().items():
        same = torch.equal(value, before[name]) if isinstance(value, Tensor) else value == before[name]
        assert same, name


def test_batch_sizes_may_differ_between_ranks_and_steps_and_be_zero() -> None:
    given = problem(C, D, (7, 2, 5))
    parts = [[0, 7, 0], [1, 0, 1], [2, 2, 1]]

    def work(world: World) -> list[Tensor]:
        head = classifier(world).double()
        head.weight.data = given.rows_CD[head.shard.start : head.shard.stop].clone()
        rows = zip(given.batches, parts, strict=True)
        return [head(torch.split(x, n)[world.rank], torch.split(y, n)[world.rank]).detach() for (x, y), n in rows]

    truths = by_whole_matrix(cases(C, D)["cosine_softmax"], given)
    for losses in on_ranks(3, work):
        assert max(error(loss, truth.loss) for loss, truth in zip(losses, truths, strict=True)) < 1e-12


def test_an_empty_global_batch_is_refused_on_every_rank() -> None:
    def work(world: World) -> str:
        with pytest.raises(ValueError, match="the global batch is empty") as raised:
            classifier(world)(torch.empty(0, D), torch.empty(0, dtype=torch.int64))
        return str(raised.value)

    assert len(on_ranks(2, work)) == 2


@pytest.mark.parametrize("label", [-1, C, 2**40])
def test_a_label_out_of_range_is_refused_on_all_ranks_at_once_with_its_value_and_the_range(label: int) -> None:
    def work(world: World) -> str:
        labels_n = torch.tensor([3, label if world.rank == 2 else 4])
        with pytest.raises(ValueError, match="out of range") as raised:
            classifier(world)(torch.randn(2, D), labels_n)
        return str(raised.value)

    messages = on_ranks(4, work)
    assert len(set(messages)) == 1
    assert f"label {label} on rank 2" in messages[0]
    assert f"0 <= label < num_classes={C}" in messages[0]


def test_embeddings_of_another_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(9, 9\).*expected \(n, 8\)"):
        classifier()(torch.randn(9, D + 1), torch.zeros(9, dtype=torch.int64))


def test_narrow_integers_serve_as_labels() -> None:
    embeddings_nD, labels_n = torch.randn(300, D), torch.randint(C, (300,))
    head = classifier()
    assert torch.equal(head(embeddings_nD, labels_n.to(torch.int8)), head(embeddings_nD, labels_n))


def test_kept_cosines_change_no_bit() -> None:
    given, found = batch(), []
    for cosines in ("keep", "recompute"):
        head = ShardedClassifier(C, D, AdaCos(C), world=World(), cosines=cosines, block_classes=5)
        leaf_ND = given[0].clone().requires_grad_()
        for _ in range(2):
            loss = head(leaf_ND, given[1])
        found.append([loss, *torch.autograd.grad(loss, (leaf_ND, head.weight))])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_kept_cosines_are_made_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    head = ShardedClassifier(C, D, AdaCos(C), world=World(), cosines="keep", block_classes=5)
    loss = head(*batch())
    sweep = loss.grad_fn.step.sweep
    assert len(sweep._kept) == 5
    assert all(kept.dtype == torch.float32 for kept in sweep._kept.values())


@pytest.mark.parametrize(("block_classes", "kept"), [(1, 3), (4, 1), (8, 0)])
def test_auto_keeps_as_many_cosines_as_a_twentieth_of_weights_and_state_holds(block_classes: int, kept: int) -> None:
    """Rows and momentum are 23 x 8 x 4 bytes each, a class's cosines with 5 images 20: 3 classes fit."""
    head = ShardedClassifier(
        C, D, AdaCos(C), world=World(), row_optimizer=RowSGD(0.1, 0.9), block_classes=block_classes
    )
    loss = head(*batch(5))
    assert len(loss.grad_fn.step.sweep._kept) == kept


@pytest.mark.parametrize("make", [lambda: AdaCos(300), lambda: CosFace(32.0, 0.35), lambda: ArcFace(32.0, 0.3)])
def test_bfloat16_products_leave_sums_targets_and_the_loss_nearly_exact(make: Callable[[], Any]) -> None:
    """Cosines are off by up to 2^-9 each; of a sum over 300 classes that is lost but for what they have in common."""
    rows_CD, embeddings_ND, labels_N = torch.randn(300, 64), torch.randn(50, 64), torch.randint(300, (50,))
    found = []
    for product_dtype in (None, torch.bfloat16):
        head = ShardedClassifier(300, 64, make(), world=World(), product_dtype=product_dtype)
        head.weight.data = rows_CD.clone()
        leaf_ND = embeddings_ND.clone().requires_grad_()
        loss = head(leaf_ND, labels_N)
        found.append([loss.detach(), *torch.autograd.grad(loss, (leaf_ND, head.weight))])
    bounds = (2e-3, 2e-2, 2e-2)
    for exact, rounded, bound in zip(*found, bounds, strict=True):
        assert rounded.dtype == torch.float32
        assert error(rounded, exact.double()) < bound


def test_rows_in_bfloat16_are_trained_and_stay_near_unit_length() -> None:
    torch.manual_seed(0)
    head = ShardedClassifier(
        C, D, CosineSoftmax(16.0), world=World(), row_optimizer=RowSGD(0.02, 0.9), weight_dtype=torch.bfloat16
    )
    given = batch(40)
    losses = [head(*given) for _ in range(1)]
    for _ in range(60):
        loss = head(*given)
        loss.backward()
        losses.append(loss.detach())
    assert head.weight.dtype == torch.bfloat16
    assert losses[-1] < 0.7 * losses[0]
    torch.testing.assert_close(head.weight.detach().float().norm(dim=1), torch.ones(C), rtol=0, atol=2**-7)


@pytest.mark.parametrize("size", [1, 3])
def test_counts_that_are_known_save_the_exchange_and_change_nothing(size: int) -> None:
    embeddings_ND, labels_N = batch(9)
    counts = [9] if size == 1 else [4, 0, 5]

    def work(world: World) -> list[Tensor]:
        head = classifier(world)
        part = torch.split(embeddings_ND, counts)[world.rank], torch.split(labels_N, counts)[world.rank]
        return [head(*part), head(*part, counts)]

    for asked, told in on_ranks(size, work):
        assert torch.equal(asked, told)


def test_a_bad_label_found_late_has_masked_the_batch_and_is_named_by_the_next_step() -> None:
    """What a GPU does with known counts, by hand: it never waits inside a step."""
    check, embeddings_nD = LabelCheck(10), torch.ones(2, 3)
    check.check(torch.tensor([3, 9, 10, 2]), [2, 0, 2])
    assert check.masked(embeddings_nD).isnan().all()
    with pytest.raises(ValueError, match=r"label 10 on rank 2 is out of range: expected 0 <= label < num_classes=10"):
        check.raise_if_bad()
    check.raise_if_bad()
    check.check(torch.tensor([3, 9]), [2])
    assert torch.equal(check.masked(embeddings_nD), embeddings_nD)
    check.raise_if_bad()


def test_a_step_talks_as_little_as_it_says() -> None:
    """The docstring's count: gathers of labels and embeddings, one all-reduce for targets and sums, one scatter."""
    said: list[str] = []

    class Listening(World):
        def all_sum(self, tensor: Tensor) -> Tensor:
            said.append(f"sum {tensor.numel()}")
            return tensor

        def gather_rows(self, rows_n: Tensor, counts: Sequence[int] | None = None) -> Tensor:
            said.append(f"gather {rows_n.numel()}")
            return rows_n

        def scatter_sum_rows(self, rows_N: Tensor, counts: Sequence[int]) -> Tensor:
            said.append(f"scatter {rows_N.numel()}")
            return rows_N

    gathers, scatter = ["gather 9", "gather 72"], ["scatter 72"]
    for objective, sums in [
        (CosFace(), ["sum 18"]),
        (P2SGrad(), ["sum 18"]),
        (AdaCos(C, dynamic=False), ["sum 18"]),
        (AdaCos(C, statistics="previous"), ["sum 18"]),
        (AdaCos(C), ["sum 18", "sum 9"]),
    ]:
        said.clear()
        embeddings_ND, labels_N = batch(9)
        head = ShardedClassifier(C, D, objective, world=Listening(), row_optimizer=RowSGD(0.1))
        head(embeddings_ND.requires_grad_(), labels_N, [9]).backward()
        assert said == gathers + sums + scatter, objective


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"sample_rate": 0.0}, "sample_rate=0.0"),
        ({"sample_rate": 1.5}, "sample_rate=1.5"),
        ({"block_classes": 0}, "block_classes=0"),
        ({"cosines": "some"}, "cosines='some'"),
        ({"gram": "yes"}, "gram='yes'"),
    ],
)
def test_an_option_out_of_its_range_is_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        classifier(**options)


@pytest.mark.parametrize("sizes", [(1, 4), (0, 4)])
def test_too_few_classes_or_dimensions_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected >= 2 and >= 1"):
        ShardedClassifier(*sizes, CosineSoftmax(16.0), world=World())


@pytest.mark.parametrize("size", [2, 3, 40])
def test_the_first_rows_are_bitwise_the_same_for_any_number_of_ranks(size: int) -> None:
    rows_CD = torch.cat(on_ranks(size, lambda world: classifier(world, seed=5).weight.detach()))
    assert torch.equal(rows_CD, classifier(seed=5).weight.detach())
    assert torch.equal(rows_CD, initial_rows(range(C), D, 5))


def test_the_row_optimizer_keeps_rows_at_unit_length() -> None:
    head = classifier(row_optimizer=RowSGD(0.5, 0.9))
    for _ in range(20):
        head(*batch()).backward()
    torch.testing.assert_close(head.weight.detach().norm(dim=1), torch.ones(C), rtol=0, atol=3e-7)


def test_the_row_optimizer_leaves_no_gradient_and_steps_against_the_sum_over_the_batch() -> None:
    embeddings_ND, labels_N = batch(6)
    plain, own = classifier().double(), classifier(row_optimizer=RowSGD(0.01)).double()
    for head in (plain, own):
        head.weight.data = torch.nn.functional.normalize(head.weight.data)  # to float64's last place
        head(embeddings_ND.double(), labels_N).backward()
    assert own.weight.grad is None
    assert plain.weight.grad is not None
    moved_CD = plain.weight.detach() - 0.01 * len(labels_N) * plain.weight.grad
    assert error(own.weight.detach(), torch.nn.functional.normalize(moved_CD)) < 1e-12


@pytest.mark.parametrize("size", [2, 3, 30])
def test_rows_trained_by_their_own_optimizer_do_not_depend_on_the_number_of_ranks(size: int) -> None:
    given = problem(C, D, (9, 6, 11))

    def work(world: World) -> Tensor:
        head = classifier(world, row_optimizer=RowSGD(0.1, 0.9), block_classes=3).double()
        for embeddings_ND, labels_N in given.batches:
            embeddings_nD, labels_n = (part.tensor_split(world.size)[world.rank] for part in (embeddings_ND, labels_N))
            head(embeddings_nD.clone().requires_grad_(), labels_n).backward()
        return head.weight.detach()

    assert error(torch.cat(on_ranks(size, work)), torch.cat(on_ranks(1, work))) < 1e-12


def test_a_foreign_optimizer_trains_rows_of_any_length() -> None:
    """SGD lengthens rows (the gradient is tangent); the loss only sees their directions, and falls."""
    torch.manual_seed(0)
    head, (embeddings_ND, labels_N) = classifier(), batch(40)
    optimizer = torch.optim.SGD([head.weight], lr=1.0, momentum=0.9)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = head(embeddings_ND, labels_N)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    lengths = head.weight.detach().norm(dim=1)
    assert lengths.min() > 1.0
    assert losses[-1] < 0.5 * losses[0]
    scaled = classifier()
    scaled.weight.data = torch.nn.functional.normalize(head.weight.detach())
    torch.testing.assert_close(scaled(embeddings_ND, labels_N), head(embeddings_ND, labels_N))


def test_the_gradient_of_a_row_is_tangent_and_inverse_to_its_length() -> None:
    embeddings_ND, labels_N = (part.double() if part.is_floating_point() else part for part in batch())
    grads = []
    for length in (1.0, 4.0):
        head = classifier().double()
        head.weight.data *= length
        head(embeddings_ND, labels_N).backward()
        assert head.weight.grad is not None
        assert (head.weight.grad * head.weight.detach()).sum(dim=1).abs().max() < 1e-15
        grads.append(head.weight.grad)
    assert error(grads[1] * 4.0, grads[0]) < 1e-12


def test_the_upstream_gradient_scales_both_gradients() -> None:
    head, (embeddings_ND, labels_N) = classifier().double(), batch()
    grads = []
    for gain in (1.0, 3.0):
        leaf_ND = embeddings_ND.double().requires_grad_()
        grads.append(torch.autograd.grad(gain * head(leaf_ND, labels_N), (leaf_ND, head.weight)))
    assert error(grads[1][0], 3.0 * grads[0][0]) < 1e-12
    assert error(grads[1][1], 3.0 * grads[0][1]) < 1e-12


@pytest.mark.parametrize("sample_rate", [1.0, 0.5])
@pytest.mark.parametrize("make", [lambda: AdaCos(C), lambda: CosFace(), lambda: P2SGrad()])
def test_evaluation_changes_no_state_even_when_run_backward(
    make: Callable[[], AdaCos | CosFace | P2SGrad], sample_rate: float
) -> None:
    head = ShardedClassifier(C, D, make(), world=World(), sample_rate=sample_rate, row_optimizer=RowSGD(0.1, 0.9))
    head(*batch()).backward()
    before = snapshot(head)
    embeddings_ND, labels_N = batch()
    embeddings_ND.requires_grad_()
    head.eval()
    head(embeddings_ND, labels_N).backward()
    assert_same_state(head, before)
    assert embeddings_ND.grad is not None
    assert embeddings_ND.grad.any()


def test_evaluation_sees_all_classes() -> None:
    sampled, whole = classifier(sample_rate=0.1), classifier()
    given = batch()
    assert torch.equal(sampled.eval()(*given), whole.eval()(*given))


def test_backward_twice_is_refused_when_it_would_move_the_rows_twice() -> None:
    head = classifier(row_optimizer=RowSGD(0.1))
    loss = head(*batch())
    loss.backward(retain_graph=True)
    before = snapshot(head)
    with pytest.raises(RuntimeError, match="backward runs once"):
        loss.backward()
    assert_same_state(head, before)


def test_a_backward_overtaken_by_another_step_is_refused() -> None:
    head = classifier(row_optimizer=RowSGD(0.1))
    first, second = head(*batch()), head(*batch())
    second.backward()
    with pytest.raises(RuntimeError, match="backward runs once"):
        first.backward()


def test_backward_twice_is_refused_on_ranks_without_classes_too() -> None:
    def work(world: World) -> bool:
        head = classifier(world, row_optimizer=RowSGD(0.1))
        loss = head(*batch())
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="backward runs once"):
            loss.backward()
        return True

    assert all(on_ranks(C + 2, work))


def test_backward_twice_gives_the_same_gradient_without_a_row_optimizer() -> None:
    head, (embeddings_ND, labels_N) = classifier(), batch()
    loss = head(embeddings_ND.requires_grad_(), labels_N)
    first = torch.autograd.grad(loss, (embeddings_ND, head.weight), retain_graph=True)
    second = torch.autograd.grad(loss, (embeddings_ND, head.weight))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_rows_changed_between_forward_and_backward_are_refused() -> None:
    head = classifier()
    loss = head(*batch())
    with torch.no_grad():
        head.weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    head, (embeddings_ND, labels_N) = classifier(), batch()
    leaf_ND = embeddings_ND.requires_grad_()
    (grad_ND,) = torch.autograd.grad(head(leaf_ND, labels_N).square(), leaf_ND, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(grad_ND.sum())


@pytest.mark.parametrize("row_optimizer", [None, RowSGD(0.1)])
def test_frozen_rows_stay_and_the_embeddings_still_learn(row_optimizer: RowSGD | None) -> None:
    head, (embeddings_ND, labels_N) = classifier(row_optimizer=row_optimizer), batch()
    head.weight.requires_grad_(False)
    before = snapshot(head)
    head(embeddings_ND.requires_grad_(), labels_N).backward()
    assert torch.equal(head.weight, before["weight"])
    assert embeddings_ND.grad is not None
    assert embeddings_ND.grad.any()


def test_autocast_around_the_classifier_changes_nothing() -> None:
    """Else forward's products would run in bfloat16 and backward's in float32: probabilities that do not sum to 1."""
    head, (embeddings_ND, labels_N) = classifier(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(head(embeddings_ND, labels_N), head.weight)[0]
    outside = torch.autograd.grad(head(embeddings_ND, labels_N), head.weight)[0]
    assert torch.equal(inside, outside)


def test_embeddings_in_bfloat16_meet_rows_in_float32_without_losing_the_rows_digits() -> None:
    head, (embeddings_ND, labels_N) = classifier(), batch()
    embeddings_ND = embeddings_ND.bfloat16()
    leaf_ND = embeddings_ND.clone().requires_grad_()
    loss = head(leaf_ND, labels_N)
    loss.backward()
    assert torch.equal(loss, head(embeddings_ND.float(), labels_N))
    assert leaf_ND.grad is not None
    assert leaf_ND.grad.dtype == torch.bfloat16


def test_a_state_dict_carries_rows_momentum_and_the_step_count() -> None:
    given = [batch() for _ in range(4)]
    straight = classifier(sample_rate=0.5, row_optimizer=RowSGD(0.1, 0.9))
    for one in given:
        straight(*one).backward()
    first = classifier(sample_rate=0.5, row_optimizer=RowSGD(0.1, 0.9))
    for one in given[:2]:
        first(*one).backward()
    second = classifier(sample_rate=0.5, row_optimizer=RowSGD(0.1, 0.9), seed=0)
    second.load_state_dict(snapshot(first))
    for one in given[2:]:
        second(*one).backward()
    assert_same_state(second, snapshot(straight))


def test_the_statistics_are_the_global_batchs_on_every_rank() -> None:
    given = problem(C, D, (9,))

    def work(world: World) -> dict[str, Tensor]:
        head = ShardedClassifier(C, D, ArcFace(), world=world).double()
        embeddings_ND, labels_N = given.batches[0]
        loss = head(embeddings_ND.tensor_split(world.size)[world.rank], labels_N.tensor_split(world.size)[world.rank])
        assert torch.equal(head.statistics["loss"], loss.detach())
        return head.statistics

    (alone,) = on_ranks(1, work)
    assert alone.keys() == {"loss", "median_target_angle", "scale"}
    for statistics in on_ranks(4, work):
        for name, value in alone.items():
            torch.testing.assert_close(statistics[name], value, rtol=1e-12, atol=0)


def test_one_process_without_a_process_group_is_the_default() -> None:
    head = ShardedClassifier(C, D, CosineSoftmax(16.0))
    assert (head.world.rank, head.world.size, head.shard) == (0, 1, range(C))
    assert str(head.shard) in repr(head)


def test_gradients_of_accumulated_batches_add_up() -> None:
    given: Problem = problem(C, D, (9, 6))
    head = classifier().double()
    head.weight.data = given.rows_CD.clone()
    for embeddings_ND, labels_N in given.batches:
        head(embeddings_ND, labels_N).backward()
    truth_CD = sum(step.grad_rows_CD for step in by_whole_matrix(cases(C, D)["cosine_softmax"], given))
    assert head.weight.grad is not None
    assert isinstance(truth_CD, Tensor)
    assert error(head.weight.grad, truth_CD) < 1e-12


@pytest.mark.parametrize("counts", [[8], [9, 0], [0], []])
def test_counts_that_are_not_the_batchs_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match=r"counts=.* for 9 rows on rank 0 of 1"):
        classifier()(*batch(9), counts)


def test_an_evaluation_in_inference_mode_does_not_disturb_the_next_step() -> None:
    head = classifier(row_optimizer=RowSGD(0.1), cosines="recompute")
    head.eval()
    with torch.inference_mode():
        head(*batch())
    head.train()
    head(*batch()).backward()


def test_rows_that_went_through_bfloat16_are_not_taken_for_unit_rows() -> None:
    """Repeated, as it shows only where the allocator gives the same address back."""
    given = batch(20)
    for _ in range(10):
        head = classifier(row_optimizer=RowSGD(0.1))
        head(*given).backward()
        head.bfloat16().float()
        fresh = classifier(row_optimizer=RowSGD(0.1))
        fresh.load_state_dict(head.state_dict())
        assert torch.equal(head(*given), fresh(*given))


def test_frozen_rows_stay_as_they_are_to_the_bit() -> None:
    head = classifier(row_optimizer=RowSGD(0.1))
    with torch.no_grad():
        head.weight.mul_(3.0)
    before = head.weight.detach().clone()
    head.weight.requires_grad_(False)
    embeddings_ND, labels_N = batch()
    head(embeddings_ND.requires_grad_(), labels_N).backward()
    assert torch.equal(head.weight, before)


def test_kept_cosines_go_with_the_backward_that_used_them() -> None:
    head = classifier(row_optimizer=RowSGD(0.1), cosines="keep")
    loss = head(*batch())
    loss.backward()
    assert loss.grad_fn.step is None
