"""Scores of listed pairs by blocks against pair by pair."""

from __future__ import annotations

import pytest
import torch

from partial_fc.functional import listed_pairs
from partial_fc.functional.listed_pairs import listed_bins
from partial_fc.functional.pair_scores import cosine_bins, pair_cosines


@pytest.mark.parametrize("pairs", [0, 1, 40, 3000])
@pytest.mark.parametrize("products_per_pair", [0, 4, 1000])
def test_blocks_have_the_scores_of_single_pairs(
    pairs: int, products_per_pair: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the products begin to pay: nowhere, in some blocks, everywhere; the last block is a short one."""
    monkeypatch.setattr(listed_pairs, "ROWS_PER_BLOCK", 8)
    monkeypatch.setattr(listed_pairs, "PRODUCTS_PER_PAIR", products_per_pair)
    generator = torch.Generator().manual_seed(pairs)
    unit_ND = torch.nn.functional.normalize(torch.randn(43, 16, generator=generator), dim=1)
    first_P, second_P = (torch.rand(2, pairs, generator=generator).square() * 43).int()
    expected = cosine_bins(pair_cosines(unit_ND, first_P, second_P)) if pairs else torch.empty(0, dtype=torch.int32)
    assert torch.equal(listed_bins(unit_ND, first_P, second_P), expected)
