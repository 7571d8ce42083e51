"""Unit rows, their adjoint, and blocks."""

from __future__ import annotations

import pytest
import torch

from partial_fc.functional import reference
from partial_fc.functional.cosine import blocks, cosine_block, tangent_gradient, target_cosines, unit_rows

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


def test_blocks_of_cosines_put_together_are_the_matrix() -> None:
    embeddings, rows = torch.randn(6, 4, dtype=torch.float64), torch.randn(11, 4, dtype=torch.float64)
    unit_ND, unit_CD = unit_rows(embeddings)[0], unit_rows(rows)[0]
    cos_NC = torch.cat([cosine_block(unit_ND, unit_CD[block]) for block in blocks(11, 4)], dim=1)
    torch.testing.assert_close(cos_NC, reference.cosines(embeddings, rows), rtol=1e-12, atol=1e-14)


def test_cosines_of_bfloat16_rows_are_handed_on_in_float32() -> None:
    unit = unit_rows(torch.randn(3, 4).bfloat16())[0]
    assert cosine_block(unit, unit).dtype == torch.float32
    assert target_cosines(unit, unit[:1], torch.tensor([2])).dtype == torch.float32


def test_target_cosines_are_zero_for_rows_that_other_ranks_own() -> None:
    unit_ND, unit_CD = unit_rows(torch.randn(4, 3).double())[0], unit_rows(torch.randn(2, 3).double())[0]
    found = target_cosines(unit_ND, unit_CD, torch.tensor([3, 1]))
    expected = [0.0, float(unit_ND[1] @ unit_CD[1]), 0.0, float(unit_ND[3] @ unit_CD[0])]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("num_columns", "width"), [(0, 3), (1, 3), (7, 1), (7, 3), (7, 7), (7, 1000)])
def test_blocks_cover_every_column_once_in_order(num_columns: int, width: int) -> None:
    found = list(blocks(num_columns, width))
    assert [column for block in found for column in range(num_columns)[block]] == list(range(num_columns))
    assert all(0 < block.stop - block.start <= width for block in found)
