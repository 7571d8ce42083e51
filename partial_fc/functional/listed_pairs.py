"""The scores of a long list of pairs of rows, by products of blocks of rows where many pairs fall into one block."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from partial_fc.functional.pair_scores import cosine_bins, pair_cosines

ROWS_PER_BLOCK = 2048  # a product of two blocks: 34 MB in float64
PRODUCTS_PER_PAIR = 100  # scores of a product that take as long as one pair whose two rows are fetched by themselves


def listed_bins(
    unit_ND: Float[Tensor, "N D"], first_P: Int[Tensor, " P"], second_P: Int[Tensor, " P"]
) -> Int[Tensor, " P"]:
    """The bins of P listed pairs, int32: those of `pair_cosines`, but for the last digit of float64.

    To fetch two rows of 512 for each pair takes 10 to 50 us on a CPU, a product 0.1 us a score: so the pairs are
    sorted by the two blocks that their rows lie in, and where these hold enough pairs all of their scores are made.
    Memory: 28 bytes a pair and one product.
    """
    blocks = -(-len(unit_ND) // ROWS_PER_BLOCK)
    tile_P = (first_P // ROWS_PER_BLOCK * blocks + second_P // ROWS_PER_BLOCK).long()
    order_P = tile_P.argsort()
    tiles, counts = torch.unique_consecutive(tile_P[order_P], return_counts=True)
    bins_P = torch.empty(len(tile_P), dtype=torch.int32, device=unit_ND.device)
    for tile, some in zip(tiles.tolist(), torch.split(order_P, counts.tolist()), strict=True):
        start_of_rows, start_of_columns = (block * ROWS_PER_BLOCK for block in divmod(tile, blocks))
        if len(some) * PRODUCTS_PER_PAIR < ROWS_PER_BLOCK**2:
            cos_p = pair_cosines(unit_ND, first_P[some], second_P[some])
        else:
            cos_nn = _block(unit_ND, start_of_rows) @ _block(unit_ND, start_of_columns).T
            cos_p = cos_nn[first_P[some] - start_of_rows, second_P[some] - start_of_columns]
        bins_P[some] = cosine_bins(cos_p)
    return bins_P


def _block(unit_ND: Tensor, start: int) -> Tensor:
    return unit_ND[start : start + ROWS_PER_BLOCK].double()
