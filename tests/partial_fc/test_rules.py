"""One kernel for all that is done with a block's cosines, against the steps that a CPU takes one after the other."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from partial_fc import fused, rules
from partial_fc.functional import p2sgrad, softmax
from partial_fc.rows.sharding import Targets
from partial_fc.rules import Rule, near_others, sum_over_others, with_targets
from partial_fc.sweeps.block import Block

N, B, START = 6, 33, 40
PLACES_N = torch.tensor([-1, START + 7, 2, -1, START + B - 1, -1]) - START
SCALE, SHIFT, THRESHOLD = torch.tensor(20.0), torch.tensor(3.0), torch.tensor(0.4)
LEVEL_N1, GAIN_N1 = 18.0 + torch.rand(N, 1), torch.rand(N, 1)
RULES = {
    "exponentials": Rule(softmax.exponentials_, (SCALE, SHIFT)),
    "filtered exponentials": Rule(softmax.filtered_exponentials_, (THRESHOLD, SCALE, SHIFT)),
    "slopes": Rule(softmax.negative_slopes_, (SCALE, LEVEL_N1, GAIN_N1)),
    "filtered slopes": Rule(softmax.filtered_slopes_, (THRESHOLD, SCALE, LEVEL_N1, GAIN_N1)),
    "linear": Rule(Tensor.mul_, (torch.tensor(0.3),)),
    "squares": Rule(Tensor.square_),
    "excesses": Rule(p2sgrad.excesses_, (THRESHOLD, SCALE)),
    "weighted excesses": Rule(p2sgrad.excesses_, (THRESHOLD, SCALE)).weighted(1.0 + torch.rand(B)),
}
MODES = [pytest.param(False, id="plain")]
if shutil.which("g++"):  # torch.compile wants a C++ compiler on a CPU
    MODES.append(pytest.param(True, id="compiled"))


@pytest.fixture(params=MODES)
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Also with what a GPU compiles compiled here."""
    if request.param:
        monkeypatch.setattr(rules, "fused_on_gpus", fused.compiled)
    for made in (rules._sum, rules._placed):
        made.cache_clear()
    yield
    for made in (rules._sum, rules._placed):
        made.cache_clear()


def block(product_Nb: Tensor, takes_part_b1: Tensor | None) -> Block:
    """Rows 1 and 4 have their targets in the block, row 4 in its last class."""
    places_N = torch.tensor([0, START + 7, 2, 3, START + B - 1, 5])
    targets = Targets(torch.arange(N), places_N, torch.tensor([False, True, True, False, True, False]))
    nothing = torch.zeros(product_Nb.shape[1], 2)
    return Block(START, slice(START, START + B), nothing, nothing, None, targets, takes_part_b1)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rule", RULES)
def test_one_kernel_gives_what_the_single_steps_give(rule: str, dtype: torch.dtype) -> None:
    product_Nb, target_N = (2 * torch.rand(N, B) - 1).to(dtype), torch.randn(N)
    untouched = product_Nb.clone()
    for takes_part_b1 in (None, torch.rand(B, 1) < 0.7):
        part = block(product_Nb, takes_part_b1)
        terms_Nb = RULES[rule](product_Nb.float().clone())
        part.place_targets(terms_Nb, torch.zeros(N))
        expected_N = part.sum_over_classes(terms_Nb)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            takes_part_b = None if takes_part_b1 is None else takes_part_b1.squeeze(1)
            found_N = sum_over_others(RULES[rule], product_Nb, PLACES_N, takes_part_b, torch.float32)
        torch.testing.assert_close(found_N, expected_N, rtol=1e-5, atol=1e-6)
    slopes_Nb = RULES[rule](product_Nb.float().clone())
    part.place_targets(slopes_Nb, target_N)
    found_Nb = with_targets(RULES[rule], product_Nb, PLACES_N, target_N, torch.float32)
    assert found_Nb.dtype == dtype
    torch.testing.assert_close(found_Nb, slopes_Nb.to(dtype), rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
    assert torch.equal(product_Nb, untouched), "kept cosines are needed again"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_compiled", [mode.values[0] for mode in MODES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_near_classes_are_summed_up_in_one_kernel(dtype: torch.dtype, is_compiled: bool) -> None:
    product_Nb, weights_b = (2 * torch.rand(N, B) - 1).to(dtype), 1.0 + torch.rand(B)
    part = block(product_Nb, None)
    excesses_Nb = (product_Nb.float() - THRESHOLD).clamp(min=0.0)
    part.place_targets(excesses_Nb, torch.zeros(N))
    expected = torch.stack([(excesses_Nb**2 * weights_b).sum(dim=1), ((excesses_Nb > 0) * weights_b).sum(dim=1)])
    function = fused.compiled(near_others) if is_compiled else near_others
    torch.testing.assert_close(function(product_Nb, PLACES_N, weights_b, THRESHOLD), expected, rtol=1e-5, atol=1e-6)
