"""The embeddings of a set of images, shared out over the ranks so that their number changes no digit."""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data_pipeline.loader.image_loader import usable_batches
from launch import assembly
from launch.config.run import Config
from launch.evaluation.held_out import HeldOut, said_of_left_out
from launch.resilience.stopping import StopRequest
from partial_fc import World
from partial_fc.embedding import embed, gathered

EMBED_BATCH = 128
_log = logging.getLogger(__name__)


class Embeddings(NamedTuple):
    """Unit rows (N, D), and of each its label, its sample number and the length it had, (N,); on every rank.

    Of the images that could be used alone.
    """

    unit_ND: Tensor
    labels_N: Tensor
    samples_N: Tensor
    norm_N: Tensor


def embeddings(
    config: Config,
    backbone: nn.Module,
    held_out: HeldOut,
    world: World,
    device: torch.device,
    *,
    flip: bool,
    stop: StopRequest | None = None,
) -> Embeddings:
    """The embeddings of all usable images; each rank embeds its share of them, and names those that it cannot use.

    GivenUp, on all ranks, where they agree meanwhile, by ``stop``, to end.
    """
    source = held_out.source
    share, bad = image_share(len(source), world.rank, world.size), dict[int, str]()
    left_out = set(held_out.left_out.tolist())
    form = assembly.image_format(config.data, device)
    batches = usable_batches(source, form, share, batch=EMBED_BATCH, left_out=left_out, bad=bad)
    if stop is not None:
        batches = stop.until_agreed(batches, most=-(-len(source) // (EMBED_BATCH * world.size)))
    dtype = torch.bfloat16 if config.backbone.autocast == "bfloat16" else None
    unit_nD, _, norm_n = embed(backbone, ((b.images, b.labels) for b in batches), device, dtype, flip)
    if stop is not None:
        stop.give_up()
    if bad:
        _log.warning(said_of_left_out(held_out._replace(left_out=held_out.left_out[:0]), bad))
    places = [place for place, sample in enumerate(share) if sample not in bad and sample not in left_out]
    samples_n = torch.tensor(share, dtype=torch.int64)[places].to(device)
    unit_ND, samples_N = gathered(unit_nD[places], samples_n, world)
    norm_N = world.gather_rows(norm_n[places])
    return Embeddings(unit_ND, torch.from_numpy(source.labels).to(device)[samples_N], samples_N, norm_N)


def image_share(num_images: int, rank: int, size: int) -> range:
    """The images that ``rank`` embeds: whole batches in a row, none where there are more ranks than batches.

    A batch is the same for any number of ranks, as the last digits of an embedding depend on its batch's size: so the
    figures of an evaluation do not depend on the number of ranks, at the cost of up to one batch's imbalance.
    """
    batches = -(-num_images // EMBED_BATCH)
    first, end = (min(batches * part // size * EMBED_BATCH, num_images) for part in (rank, rank + 1))
    return range(first, end)
