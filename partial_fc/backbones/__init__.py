"""The networks between image and embedding: one table by name, one constructor for all of them.

Names, state-dict keys, shapes and their order are arcface_torch's, so that weights go both ways:
``backbone("r50").load_state_dict(torch.load("backbone.pth"))``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial

from torch import nn

from partial_fc.backbones.iresnet import DEEPEST, DEPTHS, IResNet
from partial_fc.backbones.mobilefacenet import MobileFaceNet
from partial_fc.backbones.vision_transformer import VisionTransformer

__all__ = ["BACKBONES", "IResNet", "MobileFaceNet", "VisionTransformer", "backbone"]

#: The networks by name. Each takes the keywords of `backbone`, and options of its own family beside them.
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    **{f"r{depth}": partial(IResNet, layers) for depth, layers in DEPTHS.items()},
    "mbf": partial(MobileFaceNet, (1, 4, 6, 2), 2),
    "mbf_large": partial(MobileFaceNet, (2, 8, 12, 4), 4),
    "vit_t": partial(VisionTransformer, 4, 12),
    "vit_s": partial(VisionTransformer, 8, 12),
    "vit_b": partial(VisionTransformer, 8, 24),
    "vit_l": partial(VisionTransformer, 12, 24, drop_path=0.05, mask_ratio=0.05),
    "vit_h": partial(VisionTransformer, 16, 48, mask_ratio=0.0),
    "r2060": partial(IResNet, DEEPEST),
}


def backbone(
    name: str,
    *,
    embedding_dim: int = 512,
    input_size: int = 112,
    width: int = 64,
    dropout: float = 0.0,
    checkpoint_activations: bool = False,
    **options: float | str,
) -> nn.Module:
    """A network from images ``(n, 3, input_size, input_size)`` to embeddings ``(n, embedding_dim)``, not normalised.

    ``width`` scales every number of channels and is 64 in all the published networks: 32 is half as wide. ``options``
    are those that a family has of its own. ValueError for a name that is not in ``BACKBONES``, naming the nearest that
    is, for an option that its family does not have, and for sizes below 1.
    """
    _refuse_unknown(name, options)
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
        **options,
    )


def _refuse_unknown(name: str, options: Iterable[str]) -> None:
    if name not in BACKBONES:
        nearest = get_close_matches(name, BACKBONES, n=1, cutoff=0.0)[0]
        raise ValueError(f"no backbone is called {name!r}; the nearest is {nearest!r} of {', '.join(BACKBONES)}")
    known = inspect.signature(BACKBONES[name]).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no {option}: leave {option} out, or choose a network that has it")
