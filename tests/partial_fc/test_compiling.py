"""A compiler that fails: what was to be compiled runs as it is, and that is said once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from partial_fc.compiling import CompiledOrPlain, is_of_compiler, unless_it_fails


def broken_backend(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("Command:\ng++ main.cpp\nmain.cpp:5:10: fatal error: Python.h: No such file\n1 more")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def doubled_(values: Tensor, times: Tensor) -> Tensor:
    return values.mul_(2).add_(times)


@pytest.mark.filterwarnings("ignore")
def test_a_function_whose_compilation_fails_runs_plainly_and_once_says_why(caplog: pytest.LogCaptureFixture) -> None:
    called = unless_it_fails(torch.compile(doubled_, backend=broken_backend), doubled_, "doubled_")
    for _ in range(3):
        assert called(torch.ones(2), torch.ones(2)).tolist() == [3.0, 3.0], "nothing was done twice, in place"
    (said,) = [record.getMessage() for record in caplog.records if record.name == "partial_fc.compiling"]
    cause = "main.cpp:5:10: fatal error: Python.h: No such file"
    assert said == f"doubled_ runs without being compiled, as this machine cannot: {cause}"


@pytest.mark.filterwarnings("ignore")
def test_a_network_whose_compilation_fails_trains_as_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_plainly = torch.compile
    monkeypatch.setattr(
        "partial_fc.compiling.torch.compile", lambda network: compile_plainly(network, backend=broken_backend)
    )
    plain = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    tried = CompiledOrPlain(plain)
    images = torch.randn(4, 3)
    tried(images).sum().backward()
    assert plain[1].num_batches_tracked == 1
    assert len(list(tried.parameters())) == 4
    assert tried.eval().network.training is plain[0].training is False
    assert torch.equal(tried(images), plain(images))


def test_an_error_of_the_function_itself_passes() -> None:
    def broken(values: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        unless_it_fails(broken, doubled_, "broken")(torch.ones(1))
    assert not is_of_compiler(RuntimeError("out of memory"))
