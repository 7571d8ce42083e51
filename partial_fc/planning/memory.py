"""How much memory a rank needs to train, by part, and how many classes fit."""

from __future__ import annotations

from collections.abc import Callable

from partial_fc.planning.backbone_cost import BackboneCost
from partial_fc.planning.head_cost import HeadCost

_MOST_CLASSES = 1 << 44


def rank_memory(
    head: HeadCost,
    num_classes: int,
    backbone: BackboneCost,
    backbone_moments: int,
    batch: int,
    ranks: int,
    reserve_bytes: int,
) -> dict[str, int]:
    """Bytes on the rank that holds most classes, by part; their sum is what it needs.

    ``backbone_moments``: matrices of its optimizer's state, 1 for momentum, 2 for AdamW. Gradients are there all the
    time, as DDP's buckets; a decayed copy of them, in the optimizer's step, stands where the activations were.
    ``reserve_bytes`` is for all that is not counted here: the CUDA context, NCCL, cuDNN's workspaces, images on their
    way, fragmentation.
    """
    gradient_bytes = 4 * backbone.parameters  # float32
    return {
        **head.memory_bytes(num_classes, batch, ranks),
        "backbone weights": backbone.held_bytes,
        "backbone gradients (DDP buckets)": gradient_bytes,
        "backbone optimizer state": backbone_moments * gradient_bytes,
        "activations": max(backbone.activations_bytes(-(-batch // ranks)), gradient_bytes),
        "reserve": reserve_bytes,
    }


def most_classes(needed_bytes: Callable[[int], int], memory_bytes: int) -> int:
    """The largest ``C`` for which ``needed_bytes(C)``, which grows with it, is at most ``memory_bytes``; 0 if none."""
    fits, too_many = 0, _MOST_CLASSES
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if middle >= 2 and needed_bytes(middle) > memory_bytes:
            too_many = middle
        else:
            fits = middle
    return fits if fits >= 2 else 0
