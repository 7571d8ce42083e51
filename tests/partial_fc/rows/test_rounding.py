"""Stochastic rounding: right on average, exact where there is nothing to round, and a function of what it is for."""

from __future__ import annotations

import torch

from partial_fc.rows.rounding import rounded_to_bfloat16, row_keys


def keys(count: int, step: int = 0, stream: int = 0) -> torch.Tensor:
    return row_keys(torch.arange(count), 3, step, stream)


def test_the_mean_is_kept_and_both_neighbours_occur_as_often_as_they_should() -> None:
    """4,096 x 64 roundings of one number, a third of the way between two neighbours; the bound is 5 deviations."""
    low, step = 1.0, 2.0**-7
    values = torch.full((4096, 64), low + step / 3)
    rounded = rounded_to_bfloat16(values, keys(4096)).float()
    assert set(rounded.flatten().tolist()) == {low, low + step}
    share = float((rounded > low).double().mean())
    assert abs(share - 1 / 3) < 5 * (2 / 9 / values.numel()) ** 0.5


def test_chances_of_neighbouring_rows_columns_and_steps_do_not_go_together() -> None:
    values = torch.full((2000, 50), 1.0 + 2.0**-8)
    ups = torch.stack([rounded_to_bfloat16(values, keys(2000, step)).float() > 1.0 for step in (0, 1)]).double() - 0.5
    pairs = [(ups[:, 1:], ups[:, :-1]), (ups[:, :, 1:], ups[:, :, :-1]), (ups[1], ups[0])]
    for one, other in pairs:
        assert abs(float((one * other).mean())) < 5 * 0.25 / one.numel() ** 0.5


def test_what_bfloat16_holds_is_not_changed() -> None:
    values = torch.randn(50, 8).bfloat16().float()
    assert torch.equal(rounded_to_bfloat16(values, keys(50)).float(), values)


def test_infinity_and_nan_stay_themselves_and_signs_are_kept() -> None:
    values = torch.tensor([[torch.inf, -torch.inf, torch.nan, -1.001, 0.0, -1e-40]])
    rounded = rounded_to_bfloat16(values, keys(1))[0].float()
    assert rounded[:2].tolist() == [torch.inf, -torch.inf]
    assert rounded[2].isnan()
    assert rounded[3] in (-1.0, -1.0078125)
    assert rounded[4] == 0.0


def test_a_row_draws_the_same_in_any_block_and_anew_in_each_step_and_for_each_state() -> None:
    values = torch.randn(100, 16)
    whole = rounded_to_bfloat16(values, keys(100))
    parts = [rounded_to_bfloat16(values[k : k + 7], keys(100)[k : k + 7]) for k in range(0, 100, 7)]
    assert torch.equal(torch.cat(parts), whole)
    for other in (keys(100, step=1), keys(100, stream=1)):
        assert not torch.equal(rounded_to_bfloat16(values, other), whole)
