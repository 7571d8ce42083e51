"""SGD and AdamW on unit rows, in float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from partial_fc import RowAdamW, RowSGD
from partial_fc.rows.optimizers import RowOptimizer
from partial_fc.rows.sphere import retract_rows

normalize = torch.nn.functional.normalize


def test_a_step_is_momentum_then_the_step_then_the_way_back_to_unit_length() -> None:
    rows_cD = normalize(torch.randn(6, 4, dtype=torch.float64))
    expected_cD, velocity_cD = rows_cD.clone(), torch.zeros_like(rows_cD)
    optimizer = RowSGD(0.3, 0.9)
    optimizer.attach(rows_cD)
    for _ in range(5):
        grad_cD = torch.randn_like(rows_cD)
        velocity_cD = 0.9 * velocity_cD + grad_cD
        expected_cD = expected_cD - 0.3 * velocity_cD
        expected_cD = expected_cD / expected_cD.norm(dim=1, keepdim=True)
        optimizer.update(rows_cD, slice(0, 4), grad_cD[:4])
        optimizer.update(rows_cD, torch.tensor([4, 5]), grad_cD[4:])
    torch.testing.assert_close(rows_cD, expected_cD, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("columns", [slice(2, 4), torch.tensor([2, 3])], ids=["slice", "indices"])
def test_rows_that_take_no_part_keep_weight_and_momentum_to_the_bit(columns: slice | torch.Tensor) -> None:
    rows_cD = normalize(torch.randn(6, 4))
    optimizer = RowSGD(0.3, 0.9)
    optimizer.attach(rows_cD)
    optimizer.update(rows_cD, slice(0, 6), torch.randn(6, 4))
    rows_before_cD, momentum_before_cD = rows_cD.clone(), optimizer.get_buffer("momentum_cD").clone()
    optimizer.update(rows_cD, columns, torch.randn(2, 4))
    for after, before in ((rows_cD, rows_before_cD), (optimizer.get_buffer("momentum_cD"), momentum_before_cD)):
        assert torch.equal((after != before).any(dim=1), torch.tensor([False, False, True, True, False, False]))


def test_without_momentum_there_is_no_state() -> None:
    rows_cD = normalize(torch.randn(3, 4))
    optimizer = RowSGD(0.5)
    optimizer.attach(rows_cD)
    assert not optimizer.state_dict()


def test_a_step_of_length_zero_moves_a_unit_row_by_rounding_only() -> None:
    rows_cD = normalize(torch.randn(3, 4, dtype=torch.float64))
    before_cD = rows_cD.clone()
    optimizer = RowSGD(0.0)
    optimizer.attach(rows_cD)
    optimizer.update(rows_cD, slice(0, 3), torch.randn_like(rows_cD))
    torch.testing.assert_close(rows_cD, before_cD, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize(
    ("learning_rate", "momentum"), [(-0.1, 0.0), (0.1, 1.0), (0.1, -0.1), (float("nan"), 0.0), (float("inf"), 0.0)]
)
def test_a_parameter_out_of_its_range_is_refused(learning_rate: float, momentum: float) -> None:
    with pytest.raises(ValueError, match="learning_rate="):
        RowSGD(learning_rate, momentum)


def adamw_by_loops(rows_cD: Tensor, grads: list[Tensor], rate: float, decay: float) -> Tensor:
    """1711.05101, algorithm 2, row by row, with a retraction after each step."""
    rows_cD = rows_cD.clone()
    for row, place in enumerate(range(len(rows_cD))):
        first, second = torch.zeros(rows_cD.shape[1]).double(), torch.zeros(rows_cD.shape[1]).double()
        for step, grad_cD in enumerate(grads, 1):
            grad = grad_cD[place]
            first, second = 0.9 * first + 0.1 * grad, 0.999 * second + 0.001 * grad**2
            direction = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            moved = (1 - rate * decay) * rows_cD[row] - rate * direction
            rows_cD[row] = moved / moved.norm()
    return rows_cD


def test_adamw_is_the_papers_by_loops_with_the_way_back_to_unit_length() -> None:
    rows_cD = normalize(torch.randn(6, 4, dtype=torch.float64))
    grads = [torch.randn(6, 4, dtype=torch.float64) for _ in range(5)]
    expected_cD = adamw_by_loops(rows_cD, grads, 0.05, 0.1)
    optimizer = RowAdamW(0.05, weight_decay=0.1)
    optimizer.attach(rows_cD)
    for grad_cD in grads:
        optimizer.update(rows_cD, slice(0, 4), grad_cD[:4])
        optimizer.update(rows_cD, torch.tensor([4, 5]), grad_cD[4:])
    torch.testing.assert_close(rows_cD, expected_cD, rtol=1e-12, atol=1e-12)


def test_adamw_corrects_the_bias_of_a_row_by_its_own_updates() -> None:
    """A row drawn first in the hundredth step starts as a row drawn in the first."""
    rows_cD = normalize(torch.randn(2, 4, dtype=torch.float64))
    rows_cD[1] = rows_cD[0]
    optimizer, grad = RowAdamW(0.05), torch.randn(1, 4, dtype=torch.float64)
    optimizer.attach(rows_cD)
    optimizer.update(rows_cD, slice(1, 2), grad)
    first = rows_cD[1].clone()
    for _ in range(99):
        optimizer.update(rows_cD, slice(1, 2), torch.randn(1, 4, dtype=torch.float64))
    optimizer.update(rows_cD, slice(0, 1), grad)
    assert torch.equal(rows_cD[0], first)


@pytest.mark.parametrize("make", [lambda: RowSGD(0.3, 0.9), lambda: RowAdamW(0.3)], ids=["sgd", "adamw"])
def test_adamw_and_sgd_leave_rows_and_state_of_others_to_the_bit(make: Callable[[], RowOptimizer]) -> None:
    rows_cD, optimizer = normalize(torch.randn(6, 4)), make()
    optimizer.attach(rows_cD)
    optimizer.update(rows_cD, slice(0, 6), torch.randn(6, 4))
    before = [tensor.clone() for tensor in (rows_cD, *optimizer.buffers())]
    optimizer.update(rows_cD, torch.tensor([2, 3]), torch.randn(2, 4))
    for after, earlier in zip((rows_cD, *optimizer.buffers()), before, strict=True):
        changed = (after != earlier).reshape(6, -1).any(dim=1)
        assert changed.tolist() == [False, False, True, True, False, False]


def test_decay_lengthens_the_step_and_does_nothing_else() -> None:
    rows_cD, grad_cD = normalize(torch.randn(5, 4, dtype=torch.float64)), torch.randn(5, 4, dtype=torch.float64)
    decayed, lengthened = rows_cD.clone(), rows_cD.clone()
    RowSGD(0.2, weight_decay=0.5).update(decayed, slice(0, 5), grad_cD)
    RowSGD(0.2 / 0.9).update(lengthened, slice(0, 5), grad_cD)
    torch.testing.assert_close(decayed, lengthened, rtol=1e-12, atol=1e-12)


def test_small_steps_arrive_in_bfloat16_rows_and_state() -> None:
    """To the nearest, a step of 1e-4 would never leave 1.0; the path is followed within a tenth of its length."""
    wide_cD = normalize(torch.randn(200, 64))
    narrow_cD, start_cD = wide_cD.bfloat16(), wide_cD.clone()
    pull_cD = normalize(torch.randn(200, 64))
    optimizers = [RowSGD(1e-4, 0.9), RowSGD(1e-4, 0.9, state_dtype=torch.bfloat16)]
    for optimizer, rows_cD in zip(optimizers, (wide_cD, narrow_cD), strict=True):
        optimizer.attach(rows_cD)
        for step in range(300):
            optimizer.update(rows_cD, slice(0, 200), pull_cD.clone(), step)
    moved, followed = wide_cD - start_cD, narrow_cD.float() - start_cD
    along = float((moved * followed).sum() / moved.square().sum())
    assert along == pytest.approx(1.0, abs=0.1)
    assert narrow_cD.dtype == torch.bfloat16
    assert optimizers[1].get_buffer("momentum_cD").dtype == torch.bfloat16


def test_bfloat16_updates_do_not_depend_on_where_the_shard_begins() -> None:
    rows_cD, grad_cD = normalize(torch.randn(9, 16)).bfloat16(), torch.randn(9, 16)
    whole_cD = rows_cD.clone()
    whole = RowSGD(0.01, 0.9, state_dtype=torch.bfloat16)
    whole.attach(whole_cD, 0, seed=4)
    whole.update(whole_cD, slice(0, 9), grad_cD.clone(), step=7)
    part_cD = rows_cD[5:].clone()
    part = RowSGD(0.01, 0.9, state_dtype=torch.bfloat16)
    part.attach(part_cD, 5, seed=4)
    part.update(part_cD, torch.arange(4), grad_cD[5:].clone(), step=7)
    assert torch.equal(part_cD, whole_cD[5:])


def test_state_keeps_its_dtype_when_the_module_changes_its_own() -> None:
    optimizer = RowSGD(0.1, 0.9)
    optimizer.attach(torch.ones(2, 3))
    optimizer.get_buffer("momentum_cD").fill_(1.0 + 2.0**-20)
    assert optimizer.bfloat16().get_buffer("momentum_cD")[0, 0] == 1.0 + 2.0**-20
    assert optimizer.double().get_buffer("momentum_cD").dtype == torch.float64
    narrow = RowSGD(0.1, 0.9, state_dtype=torch.bfloat16)
    narrow.attach(torch.ones(2, 3))
    assert narrow.double().get_buffer("momentum_cD").dtype == torch.bfloat16


def test_rows_at_unit_length_stay_as_they_are_to_the_bit_and_others_are_brought_to_it() -> None:
    rows_cD = normalize(torch.randn(10_000, 64))
    before_cD = rows_cD.clone()
    rows_cD[7] *= 3.0
    rows_cD[8] = 0.0
    retract_rows(rows_cD)
    same = (rows_cD == before_cD).all(dim=1)
    assert (~same).nonzero().flatten().tolist() in ([8], [7, 8])
    torch.testing.assert_close(rows_cD[7], before_cD[7])
    assert not rows_cD[8].any()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: RowAdamW(0.1, betas=(0.9, 1.0)), "betas="),
        (lambda: RowAdamW(0.1, eps=0.0), "eps="),
        (lambda: RowSGD(0.1, weight_decay=-1.0), "weight_decay="),
        (lambda: RowSGD(0.1, state_dtype=torch.float16), "state_dtype="),
    ],
)
def test_an_option_out_of_its_range_is_refused(make: Callable[[], RowOptimizer], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make()
