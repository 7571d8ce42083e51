"""The look of a GPU as one kernel: which classes have a product of at least so much with any row of the batch.

By plain torch a block's rows in bfloat16 and its products, ``(b, N)``, go to the device's memory and back. Here rows
are rounded on their way to the matrix units, products stay in registers, and one byte is written for each class. The
readable twin is ``NarrowedSweep.reached_by_blocks``.

Legend: ``c`` classes, ``b`` those of a block, ``N`` rows of the batch, ``D`` dimensions. A program of the kernel has
``B`` classes, and goes over the batch by ``M`` rows and over the dimensions by ``K``. This module needs Triton, which
torch brings along where it is built for GPUs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CLASSES, BATCH_ROWS, DIMENSIONS = 128, 128, 64  # on an H100 172 registers a thread, 112 KiB of shared memory
_WARPS, _STAGES = 8, 3


def reached(rows_cD: Tensor, factor_ND: Tensor, least: float) -> Tensor:
    """``(c,)``, bool: whether a row's product with any of ``factor_ND`` is ``least`` or more, or NaN.

    The rows, contiguous, are rounded to the dtype of ``factor_ND``; sums are float32.
    """
    (classes, dim), batch, factor_ND = rows_cD.shape, len(factor_ND), factor_ND.contiguous()
    found_c = torch.empty(classes, dtype=torch.int8, device=rows_cD.device)
    sizes = classes, batch, triton.cdiv(batch, BATCH_ROWS), dim, CLASSES, BATCH_ROWS, DIMENSIONS
    with torch.cuda.device_of(rows_cD):  # type: ignore[no-untyped-call]
        grid = (triton.cdiv(classes, CLASSES),)
        _reached[grid](rows_cD, factor_ND, found_c, least, *sizes, num_warps=_WARPS, num_stages=_STAGES)
    return found_c.bool()


@triton.jit  # type: ignore[untyped-decorator]
def _reached(  # type: ignore[no-untyped-def]
    rows_cD,
    factor_ND,
    found_c,
    least,
    c,
    N,
    PARTS: tl.constexpr,
    D: tl.constexpr,
    B: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
):
    classes = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    is_class, found = classes < c, tl.zeros((B,), tl.int32)
    for part in range(PARTS):
        images = part * M + tl.arange(0, M)
        is_image, product = images < N, tl.zeros((B, M), tl.float32)
        for start in range(0, D, K):
            dims = start + tl.arange(0, K)
            is_dim = dims < D
            rows_at = classes[:, None] * D + dims[None, :]
            factor_at = images[None, :] * D + dims[:, None]
            rows = tl.load(rows_cD + rows_at, mask=is_class[:, None] & is_dim[None, :], other=0.0)
            factor = tl.load(factor_ND + factor_at, mask=is_image[None, :] & is_dim[:, None], other=0.0)
            product = tl.dot(rows.to(factor_ND.dtype.element_ty), factor, product)
        is_near = (product >= least) | (product != product)  # NaN is near
        found |= tl.max((is_near & is_image[None, :]).to(tl.int32), axis=1)
    tl.store(found_c + classes, found.to(tl.int8), mask=is_class)
