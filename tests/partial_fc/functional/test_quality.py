"""Error against share rejected: plain loops, ties, and by hand."""

from __future__ import annotations

import pytest
import torch

from partial_fc.functional.quality import SHARES, error_against_rejection


def plain_curve(wrong: list[bool], quality: list[float]) -> list[tuple[float, float]]:
    """The largest set of the worst pairs that the share allows and that splits no tie is rejected."""
    points: dict[float, float] = {}
    for share in SHARES:
        cut = max(q for q in quality if sum(other < q for other in quality) <= share * len(quality) + 1e-9)
        kept = [is_wrong for is_wrong, q in zip(wrong, quality, strict=True) if q >= cut]
        points[(len(quality) - len(kept)) / len(quality)] = sum(kept) / len(kept)
    return list(points.items())


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("pairs", [1, 7, 200])
def test_the_curve_is_the_plain_loop_s(pairs: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(pairs)
    quality_P = torch.randint(levels, (pairs,), generator=generator).float()
    wrong_P = torch.rand(pairs, generator=generator) < 0.4
    found = error_against_rejection(wrong_P, quality_P)
    assert found == plain_curve(wrong_P.tolist(), quality_P.tolist())


def test_the_curve_by_hand() -> None:
    """The shortest pair is wrong, one in the middle too: 2 of 4, then 1 of 3, then 1 of 2, then 0 of 1."""
    found = error_against_rejection(
        torch.tensor([False, True, True, False]), torch.tensor([4.0, 1.0, 3.0, 2.0]), (0.0, 0.25, 0.5, 0.75)
    )
    assert found == [(0.0, 0.5), (0.25, 1 / 3), (0.5, 0.5), (0.75, 0.0)]


def test_pairs_of_one_quality_are_all_kept_and_an_unknown_quality_is_refused() -> None:
    assert error_against_rejection(torch.tensor([True, False]), torch.ones(2)) == [(0.0, 0.5)]
    with pytest.raises(ValueError, match="2 pairs, 1 of unknown quality"):
        error_against_rejection(torch.tensor([True, False]), torch.tensor([1.0, torch.nan]))
    with pytest.raises(ValueError, match="0 pairs"):
        error_against_rejection(torch.zeros(0, dtype=torch.bool), torch.zeros(0))
