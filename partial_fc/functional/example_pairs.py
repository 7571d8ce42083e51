"""A few pairs to look at: the worst mistakes at a threshold, and ordinary right answers beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from partial_fc.functional.pair_scores import COLUMNS_PER_TILE, ROWS_PER_TILE, pair_cosines

Candidates = Iterator[tuple[int, int]]


class ExamplePair(NamedTuple):
    """Two images by their row, their cosine, and what is right (`same`) and what the threshold says (`accepted`)."""

    first: int
    second: int
    cosine: float
    same: bool
    accepted: bool


def hardest_pairs(
    unit_ND: Float[Tensor, "N D"], labels_N: Int[Tensor, " N"], threshold: float, count: int = 6, seed: int = 0
) -> list[ExamplePair]:
    """Up to `count` pairs of each of four kinds, in this order, every identity at most once in a kind.

    Rejected though the same (lowest cosine first), accepted though different (highest first): the worst mistakes, none
    where none were made. Then accepted and the same, rejected and different: drawn at random from `seed`.
    One sweep over all N^2 ordered pairs, with memory for one tile: one rank does it alone, once, after the evaluation.
    """
    lowest_N, genuine_N, highest_N, impostor_N = _hardest_partners(unit_ND, labels_N)
    generator = torch.Generator().manual_seed(seed)
    kinds: list[tuple[Candidates, bool, bool]] = [
        (_worst_first(lowest_N, genuine_N, lowest_N < threshold), True, False),
        (_worst_first(-highest_N, impostor_N, highest_N >= threshold), False, True),
        (_drawn(labels_N, generator, same=True), True, True),
        (_drawn(labels_N, generator, same=False), False, False),
    ]
    examples: list[ExamplePair] = []
    for candidates, same, accepted in kinds:
        examples += _chosen(candidates, unit_ND, labels_N, threshold, count, same=same, accepted=accepted)
    return examples


def _hardest_partners(unit_ND: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each image's lowest genuine score and its partner, its highest impostor score and its partner.

    The score is inf, or -inf, for an image without such a partner.
    """
    images, device = len(unit_ND), unit_ND.device
    score_N = torch.full((2, images), torch.inf, dtype=torch.float64, device=device)
    partner_N = torch.zeros((2, images), dtype=torch.int64, device=device)
    image_N = torch.arange(images, device=device)
    for rows in torch.split(image_N, ROWS_PER_TILE):
        for columns in torch.split(image_N, COLUMNS_PER_TILE):
            cos_nn = unit_ND[rows].double() @ unit_ND[columns].double().T
            same_nn = labels_N[rows, None] == labels_N[columns]
            other_nn = rows[:, None] != columns
            # Impostor scores are negated, so that both searches are for a minimum.
            for kind, wanted_nn in enumerate((same_nn & other_nn, ~same_nn)):
                signed_nn = -cos_nn if kind else cos_nn
                score_n, column_n = signed_nn.masked_fill(~wanted_nn, torch.inf).min(1)
                better_n = score_n < score_N[kind, rows]
                score_N[kind, rows] = torch.where(better_n, score_n, score_N[kind, rows])
                partner_N[kind, rows] = torch.where(better_n, columns[column_n], partner_N[kind, rows])
    return score_N[0], partner_N[0], -score_N[1], partner_N[1]


def _worst_first(score_N: Tensor, partner_N: Tensor, mistaken_N: Tensor) -> Candidates:
    """(image, partner) of the mistakes by ascending score."""
    images = mistaken_N.nonzero().flatten()
    images = images[score_N[images].argsort(stable=True)]
    return zip(images.tolist(), partner_N[images].tolist(), strict=True)


def _drawn(labels_N: Tensor, generator: torch.Generator, *, same: bool, draws: int = 400) -> Candidates:
    """(image, partner) at random, the partner of the same identity or of another, wherever there is one."""
    labels_N = labels_N.cpu()
    for image in torch.randperm(len(labels_N), generator=generator)[:draws].tolist():
        wanted_N = (labels_N == labels_N[image]) == same
        wanted_N[image] = False
        partners = wanted_N.nonzero().flatten()
        if len(partners) > 0:
            yield image, int(partners[torch.randint(len(partners), (), generator=generator)])


def _chosen(
    candidates: Candidates,
    unit_ND: Tensor,
    labels_N: Tensor,
    threshold: float,
    count: int,
    *,
    same: bool,
    accepted: bool,
) -> list[ExamplePair]:
    """The first `count` candidates of the wanted outcome, by the rounded score that the measures count."""
    chosen: list[ExamplePair] = []
    shown: set[int] = set()
    for first, second in candidates:
        identities = {int(labels_N[first]), int(labels_N[second])}
        if len(chosen) == count:
            break
        if identities & shown:
            continue
        pair_21 = torch.tensor([[first], [second]], device=unit_ND.device)
        cosine = float(pair_cosines(unit_ND, pair_21[0], pair_21[1]))
        if (cosine >= threshold) == accepted:
            chosen.append(ExamplePair(first, second, cosine, same, accepted))
            shown |= identities
        elif (not same and accepted) or (same and not accepted):
            break  # ordered candidates: nothing after this one is a mistake
    return chosen
