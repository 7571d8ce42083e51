from __future__ import annotations

import inspect
import math
from itertools import pairwise
from typing import Any

import pytest

from partial_fc.schedule import Decay, learning_rate_factor


def course(total_steps: int, **options: Any) -> list[float]:
    return [learning_rate_factor(step, total_steps=total_steps, **options) for step in range(total_steps)]


def test_the_first_step_is_already_a_warm_up_step_and_the_last_of_them_a_whole_one() -> None:
    assert course(10, warmup_steps=4)[:4] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("decay", ["polynomial", "cosine"])
@pytest.mark.parametrize(("total_steps", "warmup_steps"), [(2, 0), (2, 1), (3, 2), (17, 0), (17, 16), (1000, 30)])
@pytest.mark.parametrize("final", [0.0, 0.01, 0.3, 1.0])
def test_after_the_warm_up_the_factor_never_rises_and_ends_at_final_exactly(
    decay: Decay, total_steps: int, warmup_steps: int, final: float
) -> None:
    factors = course(total_steps, warmup_steps=warmup_steps, decay=decay, power=2.0, final=final)
    decayed = factors[max(warmup_steps - 1, 0) :]
    assert decayed[0] == pytest.approx(1.0, abs=1e-15)
    assert all(later <= earlier for earlier, later in pairwise(decayed))
    assert decayed[-1] == final
    assert all(0.0 <= factor <= 1.0 for factor in factors)


def test_the_polynomial_of_power_one_falls_in_equal_steps() -> None:
    assert course(5) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    assert course(6, warmup_steps=2, final=0.2) == pytest.approx([0.5, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_the_power_bends_the_polynomial() -> None:
    assert course(5, power=2.0) == pytest.approx([1.0, 0.75**2, 0.5**2, 0.25**2, 0.0])


def test_the_cosine_is_half_way_in_the_middle_and_flat_at_both_ends() -> None:
    factors = course(1001, decay="cosine")
    assert factors[500] == pytest.approx(0.5)
    assert 1.0 - factors[1] < 1e-5
    assert factors[-2] < 1e-5
    assert factors[250] == pytest.approx((1.0 + math.cos(math.pi / 4)) / 2)


def test_a_run_of_one_step_is_at_its_last() -> None:
    assert course(1, final=0.5) == [0.5]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"step": -1}, "step counts from 0 to"),
        ({"step": 10}, "step counts from 0 to"),
        ({"total_steps": 0}, "total_steps"),
        ({"warmup_steps": 10}, "warmup_steps"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"decay": "linear"}, "decay"),
        ({"power": 0.0}, "power"),
        ({"power": math.nan}, "power"),
        ({"final": -0.1}, "final"),
        ({"final": 1.1}, "final"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(options: dict[str, Any], what: str) -> None:
    unchecked = inspect.unwrap(learning_rate_factor)  # without the tests' own type checks
    with pytest.raises(ValueError, match=what):
        unchecked(**{"step": 0, "total_steps": 10, **options})
