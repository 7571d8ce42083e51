"""How much damage a run puts up with, agreed by its ranks."""

from __future__ import annotations

from typing import Protocol

import torch

from partial_fc import World

ALWAYS_ALLOWED = 10  # early in a run a share of the images seen so far is no number to go by


class CountedImages(Protocol):
    """What one rank was given since its process started."""

    @property
    def images(self) -> int:
        """All images."""

    @property
    def replaced(self) -> int:
        """Those of them that stand for one that was found bad."""


def agreed_bad_images(counted: CountedImages, most_share: float, world: World, device: torch.device) -> tuple[int, int]:
    """How many images were replaced since the start, on this rank and on all of them together.

    ValueError, on all ranks alike, if that is more than ``most_share`` of the images seen and more than ten; with a
    share of 0, if it is one. One all-reduce of two numbers, read by the host.
    """
    here = torch.tensor([counted.replaced, counted.images], dtype=torch.int64, device=device)
    bad, seen = world.all_sum(here).tolist()
    allowed = max(most_share * seen, ALWAYS_ALLOWED) if most_share else 0
    if bad > allowed:
        raise ValueError(
            f"{bad:,} of {seen:,} images could not be used ({100 * bad / seen:.2g} %), and data.most_bad_images allows "
            f"{100 * most_share:g} %: the warnings above say which and why. Let `partial-fc verify` list them all for "
            "data.quarantine, or allow more"
        )
    return counted.replaced, bad
