"""Templates: one row for many pictures of a person, as the IJB protocols compare them.

N embeddings, M media, T templates, D dimensions. A medium is one still picture, or all frames of one video.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from partial_fc.functional.cosine import unit_rows


class Templates(NamedTuple):
    """Unit rows and the number by which the lists know each, ascending."""

    unit_TD: Float[Tensor, "T D"]
    template_T: Int[Tensor, " T"]

    def rows_of(self, wanted: Int[Tensor, " W"]) -> Int[Tensor, " W"]:
        """The row of each template number. ValueError naming the first that has no picture."""
        at = torch.searchsorted(self.template_T, wanted).clamp_(max=len(self.template_T) - 1)
        missing = (self.template_T[at] != wanted).nonzero().flatten()
        if len(missing):
            raise ValueError(
                f"template {int(wanted[missing[0]])} has no picture that could be used "
                f"({len(torch.unique(wanted[missing]))} such templates)"
            )
        return at


def pooled_templates(
    rows_ND: Float[Tensor, "N D"],
    template_N: Int[Tensor, " N"],
    medium_N: Int[Tensor, " N"],
    weight_N: Float[Tensor, " N"] | None = None,
) -> Templates:
    """Each template's unit row: its rows, times their weights, pooled by medium, then by template.

    The rows of one medium within a template are averaged, so that a long video counts as much as a still; the media of
    a template are added, and the sum has unit length (IJB-A to IJB-C; "media pooling", Crosswhite et al. 2017).
    Unit rows weigh alike without a weight; the field's weights are the norm that the network gave an embedding, the
    detector's score of its picture, or their product. Summed in float64. A template whose rows add up to nothing stays
    zero: its cosine with any other is 0.
    """
    pairs_M2, medium_of_N, rows_M = torch.unique(
        torch.stack([template_N, medium_N], 1), dim=0, return_inverse=True, return_counts=True
    )
    template_T, template_of_M = torch.unique(pairs_M2[:, 0], return_inverse=True)
    mean_MD = rows_ND.new_zeros(len(pairs_M2), rows_ND.shape[1], dtype=torch.float64)
    for some in torch.split(torch.arange(len(rows_ND), device=rows_ND.device), ROWS_AT_A_TIME):
        rows = rows_ND[some].double()
        mean_MD.index_add_(0, medium_of_N[some], rows if weight_N is None else rows * weight_N[some, None])
    mean_MD /= rows_M[:, None]
    sum_TD = mean_MD.new_zeros(len(template_T), rows_ND.shape[1]).index_add_(0, template_of_M, mean_MD)
    return Templates(unit_rows(sum_TD)[0].to(rows_ND.dtype), template_T)


ROWS_AT_A_TIME = 65536  # 268 MB in float64 at 512 dimensions
