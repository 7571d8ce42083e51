"""What the ranks tell each other for a report: how long each needs by itself, and how many images were bad."""

from __future__ import annotations

from typing import Protocol

import torch

from partial_fc import World
from partial_fc.reports.step_report import RankFigures

ALWAYS_ALLOWED = 10  # early in a run a share of the images seen so far is no number to go by


class CountedImages(Protocol):
    """What one rank was given since its process started."""

    @property
    def images(self) -> int:
        """All images."""

    @property
    def replaced(self) -> int:
        """Those of them that stand for one that was found bad."""


def gathered_figures(
    own_step_seconds: float,
    data_wait_seconds: float,
    *,
    counted: CountedImages,
    most_share: float,
    world: World,
    device: torch.device,
) -> RankFigures:
    """Every rank's ``own_step_seconds``, the longest ``data_wait_seconds``, and how many images were replaced.

    Those are counted since the start, here and on all ranks.

    ValueError, on all ranks alike, if those are more than ``most_share`` of the images seen and more than ten; with a
    share of 0, if it is one. One all-gather of four numbers, read by the host.
    """
    figures = [own_step_seconds, data_wait_seconds, counted.replaced, counted.images]
    here = torch.tensor(figures, dtype=torch.float64, device=device)
    seconds, waits_seconds, replaced, images = world.all_gather(here).T.tolist()
    bad, seen = int(sum(replaced)), int(sum(images))
    _refuse_many(bad, seen, most_share)
    return RankFigures(tuple(seconds), max(waits_seconds), counted.replaced, bad)


def _refuse_many(bad: int, seen: int, most_share: float) -> None:
    allowed = max(most_share * seen, ALWAYS_ALLOWED) if most_share else 0
    if bad > allowed:
        raise ValueError(
            f"{bad:,} of {seen:,} images could not be used ({100 * bad / seen:.2g} %), and data.most_bad_images allows "
            f"{100 * most_share:g} %: the warnings above say which and why. Let `partial-fc verify` list them all for "
            "data.quarantine, or allow more"
        )
