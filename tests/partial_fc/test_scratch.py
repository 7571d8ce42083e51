"""Buffers used again."""

from __future__ import annotations

import sys

import pytest
import torch

from partial_fc import AdaCos, P2SGrad, RowSGD, ShardedClassifier, World
from partial_fc.objectives import Objective
from partial_fc.scratch import Scratch


def test_a_name_gives_the_same_memory_again_and_more_when_it_must_grow() -> None:
    scratch, like = Scratch(), torch.empty(0)
    first = scratch("rows", (3, 4), like)
    assert scratch("rows", (2, 6), like).data_ptr() == first.data_ptr()
    assert scratch("rows", (5, 4), like).shape == (5, 4)
    assert scratch("rows", (3, 4), like, torch.bfloat16).data_ptr() != first.data_ptr()
    assert scratch("others", (3, 4), like).data_ptr() != first.data_ptr()


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted as Linux does")
@pytest.mark.parametrize("objective", [P2SGrad(), AdaCos(30_000)])
@pytest.mark.parametrize("product_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_step_asks_the_kernel_for_hardly_any_memory(objective: Objective, product_dtype: torch.dtype) -> None:
    """15 blocks a sweep of some 4 MiB tensors: without buffers tens of thousands of pages, each step anew."""
    import resource

    head = ShardedClassifier(
        30_000, 256, objective, world=World(), row_optimizer=RowSGD(0.01, 0.9), product_dtype=product_dtype
    )
    faults = []
    for _ in range(4):
        embeddings_ND, labels_N = torch.randn(512, 256, requires_grad=True), torch.randint(30_000, (512,))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        head(embeddings_ND, labels_N).backward()
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert min(faults[1:]) < 3000
