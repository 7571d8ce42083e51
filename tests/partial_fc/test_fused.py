"""What is compiled for GPUs against the functions it is compiled from, by the C++ compiler of this machine."""

from __future__ import annotations

import inspect
import math
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from partial_fc.functional import cosine, softmax
from partial_fc.fused import compiled
from partial_fc.rows.rounding import rounded_to_bfloat16, row_keys
from partial_fc.rows.sphere import step_on_sphere_

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler on a CPU")


def arguments(function: Callable[..., Tensor], rows: int) -> list[Tensor]:
    matrix, other, column = torch.rand(5, rows), torch.rand(5, rows), torch.rand(5, 1)
    given: dict[Callable[..., Tensor], list[Tensor]] = {
        softmax.exponentials_: [matrix, torch.tensor(20.0), torch.tensor(3.0)],
        softmax.negative_slopes_: [matrix, torch.tensor(20.0), 20.0 + column, column],
        cosine.tangent_gradient: [matrix, other, column.expand(5, 1)],
        step_on_sphere_: [matrix, other, torch.tensor(0.1)],
    }
    return given[function]


@pytest.mark.parametrize(
    "function", [softmax.exponentials_, softmax.negative_slopes_, cosine.tangent_gradient, step_on_sphere_]
)
def test_compiled_and_plain_functions_give_the_same_in_place_for_blocks_of_any_width(
    function: Callable[..., Tensor],
) -> None:
    for rows in (64, 17):
        plain = arguments(function, rows)
        given = [part.clone() for part in plain]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its own modules
            found = compiled(function)(*given)
        torch.testing.assert_close(found, function(*plain), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(given[0], plain[0], rtol=1e-5, atol=1e-6)


def test_compiled_and_plain_rounding_are_bitwise_equal() -> None:
    values = torch.randn(17, 32)  # of 33 the C++ backend of torch 2.13 writes its last vector past the row's end
    values[0, :3] = torch.tensor([math.inf, -math.inf, math.nan])
    keys = row_keys(torch.arange(17), 1, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compiled(rounded_to_bfloat16)(values, keys)
    assert torch.equal(found.view(torch.int16), rounded_to_bfloat16(values, keys).view(torch.int16))


def test_a_learning_rate_that_changes_at_each_step_is_compiled_once() -> None:
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    step = torch.compile(inspect.unwrap(step_on_sphere_), backend="aot_eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rate in (0.0, 0.1, 0.11, 0.12, 0.13):
            step(torch.rand(5, 8), torch.rand(5, 8), torch.tensor(rate))  # type: ignore[no-untyped-call]
    assert counters["stats"]["unique_graphs"] == 1


def test_blocks_of_several_widths_are_compiled_twice_and_the_dimensions_stay_a_number() -> None:
    shapes = list[tuple[int | torch.SymInt, ...]]()

    def backend(graph: Any, inputs: Any) -> Any:
        values = [node.meta["example_value"] for node in graph.graph.find_nodes(op="placeholder")]
        shapes.append(next(tuple(value.shape) for value in values if isinstance(value, Tensor)))
        return graph

    torch.compiler.reset()
    step = torch.compile(inspect.unwrap(step_on_sphere_), backend=backend)
    for width in (64, 64, 17, 33, 64):
        step(torch.rand(width, 8), torch.rand(width, 8), torch.tensor(0.1))  # type: ignore[no-untyped-call]
    assert [[type(size) for size in shape] for shape in shapes] == [[int, int], [torch.SymInt, int]]
