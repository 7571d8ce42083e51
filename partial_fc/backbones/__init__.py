"""The networks between image and embedding: one table by name, one constructor for all of them.

Names, state-dict keys, shapes and their order are arcface_torch's, so that weights go both ways:
``backbone("r50").load_state_dict(torch.load("backbone.pth"))``.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import partial
from typing import Protocol

from torch import nn

from partial_fc.backbones.iresnet import DEPTHS, IResNet
from partial_fc.backbones.mobilefacenet import MobileFaceNet

__all__ = ["BACKBONES", "IResNet", "MobileFaceNet", "backbone", "known_name"]


class _Constructor(Protocol):
    def __call__(
        self, *, embedding_dim: int, input_size: int, width: int, dropout: float, checkpoint_activations: bool
    ) -> nn.Module: ...


BACKBONES: dict[str, _Constructor] = {
    **{f"r{depth}": partial(IResNet, layers) for depth, layers in DEPTHS.items()},
    "mbf": MobileFaceNet,
}


def known_name(name: str) -> str:
    """``name``; ValueError for a name that is not in ``BACKBONES``, with the nearest that is."""
    if name not in BACKBONES:
        nearest = get_close_matches(name, BACKBONES, n=1, cutoff=0.0)[0]
        raise ValueError(f"no backbone is called {name!r}; the nearest is {nearest!r} of {', '.join(BACKBONES)}")
    return name


def backbone(
    name: str,
    *,
    embedding_dim: int = 512,
    input_size: int = 112,
    width: int = 64,
    dropout: float = 0.0,
    checkpoint_activations: bool = False,
) -> nn.Module:
    """A network from images ``(n, 3, input_size, input_size)`` to embeddings ``(n, embedding_dim)``, not normalised.

    ``width`` scales every number of channels and is 64 in all the published networks: 32 is half as wide.
    ValueError for a name that is not in ``BACKBONES``, naming the nearest that is, and for sizes below 1.
    """
    known_name(name)
    for what, size in (("embedding_dim", embedding_dim), ("input_size", input_size), ("width", width)):
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{what} is a whole number, at least 1 (a width of 64 is the published one), got {size}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout is a share in [0, 1), got {dropout}")
    return BACKBONES[name](
        embedding_dim=embedding_dim,
        input_size=input_size,
        width=width,
        dropout=dropout,
        checkpoint_activations=checkpoint_activations,
    )
