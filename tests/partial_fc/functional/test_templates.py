"""Pooling by medium and template against plain loops and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from partial_fc.functional.templates import Templates, pooled_templates


def plain_templates(rows: list[Tensor], templates: list[int], media: list[int]) -> dict[int, Tensor]:
    """The protocol in words: the mean of each medium, the sum of the media, at unit length."""
    found = {}
    for template in sorted(set(templates)):
        total = torch.zeros(len(rows[0]), dtype=torch.float64)
        for medium in sorted({m for t, m in zip(templates, media, strict=True) if t == template}):
            own = [row for row, t, m in zip(rows, templates, media, strict=True) if (t, m) == (template, medium)]
            total += sum(row.double() for row in own) / len(own)
        found[template] = total / total.norm()
    return found


@pytest.mark.parametrize("seed", range(4))
def test_templates_are_the_plain_loop_s(seed: int) -> None:
    """Of unequal templates: one has a single picture, one most of them; media numbers are shared between templates."""
    generator = torch.Generator().manual_seed(seed)
    rows_ND = torch.randn(200, 8, generator=generator)
    template_N = 3 * torch.randint(0, 30, (200,), generator=generator).square() // 60 + 7
    medium_N = torch.randint(100, 106, (200,), generator=generator)
    template_N[17] = 9999
    found = pooled_templates(rows_ND, template_N, medium_N)
    expected = plain_templates(list(rows_ND), template_N.tolist(), medium_N.tolist())
    assert found.template_T.tolist() == list(expected)
    torch.testing.assert_close(found.unit_TD, torch.stack(list(expected.values())).float(), atol=1e-6, rtol=0)


def test_a_long_video_counts_as_much_as_a_still() -> None:
    """By hand: the still (1, 0) and a video of three frames (0, 1) make (1, 1) / sqrt(2)."""
    rows_ND = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    found = pooled_templates(rows_ND, torch.full((4,), 5), torch.tensor([1, 2, 2, 2]))
    assert found.unit_TD.tolist() == [pytest.approx([0.5**0.5, 0.5**0.5])]


def test_rows_weigh_by_their_length() -> None:
    """By hand: lengths 3 and 4 of two rows at right angles make (0.6, 0.8), within a medium too, by weight as well."""
    rows_ND = torch.tensor([[3.0, 0.0], [0.0, 4.0], [3.0, 0.0], [0.0, 4.0]])
    templates, media = torch.tensor([1, 1, 2, 2]), torch.tensor([1, 2, 7, 7])
    weight_N = rows_ND.norm(dim=1)
    for found in (
        pooled_templates(rows_ND, templates, media),
        pooled_templates(rows_ND / weight_N[:, None], templates, media, weight_N),
    ):
        assert found.unit_TD.tolist() == [pytest.approx([0.6, 0.8])] * 2


def test_what_cancels_out_stays_zero_and_what_is_not_finite_stays_so() -> None:
    rows_ND = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [torch.nan, 1.0], [0.0, 1.0]])
    found = pooled_templates(rows_ND, torch.tensor([1, 1, 2, 3]), torch.arange(4))
    assert found.unit_TD[0].tolist() == [0.0, 0.0]
    assert bool(found.unit_TD[1].isnan().any())
    assert found.unit_TD[2].tolist() == [0.0, 1.0]


def test_templates_are_found_by_number_and_a_missing_one_is_named() -> None:
    found = Templates(torch.eye(3), torch.tensor([2, 5, 9]))
    assert found.rows_of(torch.tensor([9, 2, 2, 5])).tolist() == [2, 0, 0, 1]
    with pytest.raises(ValueError, match=r"template 4 has no picture that could be used \(2 such templates\)"):
        found.rows_of(torch.tensor([9, 4, 100, 4]))
