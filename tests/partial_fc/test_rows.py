"""SGD on unit rows."""

from __future__ import annotations

import pytest
import torch

from partial_fc import RowSGD

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
