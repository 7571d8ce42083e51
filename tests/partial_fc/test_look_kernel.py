"""The kernel of a GPU's look in Triton's interpreter, on a CPU. ``test_gpu.py`` runs it on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from partial_fc.compiling import is_not_of_device, unless_it_fails
from partial_fc.sweeps.narrowed_sweep import NarrowedSweep, by_kernel
from partial_fc.world import World

IN_THE_INTERPRETER = """
import torch
from partial_fc.sweeps.look_kernel import reached

torch.manual_seed(0)
for classes, batch, dim in ((300, 150, 96), (128, 128, 64), (1, 1, 1), (129, 3, 70)):
    rows_cD, factor_ND = (torch.nn.functional.normalize(torch.randn(n, dim)) for n in (classes, batch))
    rows_cD[classes // 2] = torch.nan
    product_cN = rows_cD @ factor_ND.T
    for least in (product_cN.nan_to_num(0.0).amax(1).median().item() - 1e-5, -0.5, 2.0):
        found_c = reached(rows_cD, factor_ND.T.contiguous().T, least)
        expected_c = ~(product_cN.amax(1) < least)
        assert found_c.dtype == torch.bool
        assert torch.equal(found_c, expected_c), (classes, batch, dim, least)
        print(int(found_c.sum()))
factor_ND[0] = torch.inf
assert reached(rows_cD, factor_ND, 2.0).all()
"""


COMPILED = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from partial_fc.sweeps import look_kernel as look

arguments = {"rows_cD": "*fp32", "factor_ND": "*bf16", "found_c": "*i8", "least": "fp32", "c": "i32", "N": "i32"}
tiles = {"PARTS": 4, "D": 512, "B": look.CLASSES, "M": look.BATCH_ROWS, "K": look.DIMENSIONS}
signature = {**arguments, **dict.fromkeys(tiles, "constexpr")}
aligned = {(place,): [["tt.divisibility", 16]] for place in range(3)}
source = ASTSource(look._reached, signature, tiles, aligned)
for capability in (80, 90):
    options = {"num_warps": look._WARPS, "num_stages": look._STAGES}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    print(capability, made.metadata.shared, "wgmma.mma_async" in made.asm["ptx"], "mma.sync" in made.asm["ptx"])
"""


def test_the_kernel_marks_what_plain_torch_does() -> None:
    """In float32: Triton's interpreter has no products in bfloat16."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", IN_THE_INTERPRETER], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    marked = [int(line) for line in done.stdout.split()]
    assert 1 < marked[0] < 299
    assert marked[1:3] == [300, 1]


def test_the_kernel_compiles_for_an_a100_and_an_h100_to_products_of_their_matrix_units() -> None:
    """No GPU is needed for that. 163 and 227 KiB of shared memory are what a program may have there."""
    pytest.importorskip("triton")
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [(capability, *units) for capability, _, *units in lines] == [
        ("80", "False", "True"),
        ("90", "True", "False"),
    ]
    assert all(int(shared) < 160 << 10 for _, shared, *_ in lines)


def test_where_there_is_no_triton_the_look_goes_by_blocks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "partial_fc.sweeps.look_kernel", raising=False)
    unit_ND, rows_cD = torch.split(nn.functional.normalize(torch.randn(55, 8)), [5, 50])
    sweep = NarrowedSweep(World(), 50, range(50), rows_cD, True, unit_ND, torch.arange(5), [5], torch.float32)
    called = unless_it_fails(by_kernel, NarrowedSweep.reached_by_blocks, "the look at all classes", is_not_of_device)
    for _ in range(2):
        reached_c = called(sweep, unit_ND.bfloat16(), 0.5)
        assert torch.equal(reached_c, (rows_cD.bfloat16() @ unit_ND.bfloat16().T).amax(1) >= 0.5)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "partial_fc.compiling"]
    assert said.startswith("the look at all classes runs without being compiled, as this machine cannot: ")
    assert "triton" in said
