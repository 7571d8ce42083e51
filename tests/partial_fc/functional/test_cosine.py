"""Unit rows, their adjoint, and blocks."""

from __future__ import annotations

import pytest
import torch

from partial_fc.functional.cosine import blocks, tangent_gradient, unit_rows

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)


@DTYPES
def test_rows_come_back_at_unit_length_in_their_dtype_with_norms_in_float32_at_least(dtype: torch.dtype) -> None:
    rows = (3.0 * torch.randn(5, 64)).to(dtype)
    unit, norm = unit_rows(rows)
    assert unit.dtype == dtype
    assert norm.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(norm.double()[:, 0], rows.double().norm(dim=1), rtol=1e-6, atol=0)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(unit.double(), rows.double() / rows.double().norm(dim=1, keepdim=True), rtol=eps, atol=0)


@DTYPES
def test_a_zero_row_stays_zero_and_has_no_gradient(dtype: torch.dtype) -> None:
    unit, norm = unit_rows(torch.zeros(2, 4, dtype=dtype))
    assert not unit.any()
    assert not tangent_gradient(torch.ones(2, 4, dtype=norm.dtype), unit, norm).any()


def test_a_row_that_is_not_finite_shows() -> None:
    unit, _ = unit_rows(torch.tensor([[torch.nan, 1.0], [torch.inf, 1.0]]))
    assert unit.isnan().any(dim=1).all()


def test_an_empty_batch_has_no_rows() -> None:
    unit, norm = unit_rows(torch.empty(0, 4))
    assert unit.shape == (0, 4)
    assert norm.shape == (0, 1)


def test_the_tangent_gradient_is_the_adjoint_of_normalising() -> None:
    rows = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    grad_unit = torch.randn(5, 4, dtype=torch.float64)
    (expected,) = torch.autograd.grad(rows / rows.norm(dim=1, keepdim=True), rows, grad_unit)
    unit, norm = unit_rows(rows.detach())
    torch.testing.assert_close(tangent_gradient(grad_unit, unit, norm), expected, rtol=1e-12, atol=1e-14)


def test_the_gradient_of_unit_rows_needs_no_norms() -> None:
    unit, norm = unit_rows(torch.randn(5, 4, dtype=torch.float64))
    grad_unit = torch.randn(5, 4, dtype=torch.float64)
    found = tangent_gradient(grad_unit, unit)
    torch.testing.assert_close(found, tangent_gradient(grad_unit, unit, torch.ones_like(norm)), rtol=0, atol=0)


@pytest.mark.parametrize(("num_columns", "width"), [(0, 3), (1, 3), (7, 1), (7, 3), (7, 7), (7, 1000)])
def test_blocks_cover_every_column_once_in_order(num_columns: int, width: int) -> None:
    found = list(blocks(num_columns, width))
    assert [column for block in found for column in range(num_columns)[block]] == list(range(num_columns))
    assert all(0 < block.stop - block.start <= width for block in found)
