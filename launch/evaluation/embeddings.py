"""The embeddings of a set of images, shared out over the ranks so that their number changes no digit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data_pipeline.loader.image_loader import sequential_batches
from data_pipeline.source import Source
from launch import assembly
from launch.config.run import Config
from partial_fc import World
from partial_fc.embedding import embed, gathered

EMBED_BATCH = 128


def embeddings(
    config: Config, backbone: nn.Module, source: Source, world: World, device: torch.device, *, flip: bool
) -> tuple[Tensor, Tensor]:
    """Unit rows and labels of all images of ``source``, on every rank; each rank embeds its share of them."""
    share = image_share(len(source), world.rank, world.size)
    batches = sequential_batches(source, assembly.image_format(config.data, device), share, batch=EMBED_BATCH)
    dtype = torch.bfloat16 if config.backbone.autocast == "bfloat16" else None
    return gathered(*embed(backbone, ((b.images, b.labels) for b in batches), device, dtype, flip), world)


def image_share(num_images: int, rank: int, size: int) -> range:
    """The images that ``rank`` embeds: whole batches in a row, none where there are more ranks than batches.

    A batch is the same for any number of ranks, as the last digits of an embedding depend on its batch's size: so the
    figures of an evaluation do not depend on the number of ranks, at the cost of up to one batch's imbalance.
    """
    batches = -(-num_images // EMBED_BATCH)
    first, end = (min(batches * part // size * EMBED_BATCH, num_images) for part in (rank, rank + 1))
    return range(first, end)
