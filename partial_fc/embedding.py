"""The embeddings of a set of images, gathered from all ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from partial_fc.functional.cosine import unit_rows
from partial_fc.world import World


class Embedded(NamedTuple):
    """Unit rows in float32, the lengths that they had, and their labels."""

    unit_nD: Float[Tensor, "n D"]
    labels_n: Int[Tensor, " n"]
    norm_n: Float[Tensor, " n"]


def gathered(
    unit_nD: Float[Tensor, "n d"], labels_n: Int[Tensor, " n"], world: World
) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
    """All ranks' rows and labels in rank order; a rank that has none need not know D. Talks: N rows and N labels."""
    sizes = world.all_gather(torch.tensor(unit_nD.shape[1], device=unit_nD.device))
    if len(unit_nD) == 0:
        unit_nD = unit_nD.new_empty(0, int(sizes.max()))
    return world.gather_rows(unit_nD), world.gather_rows(labels_n)


def embed(
    backbone: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
    flip: bool = False,
) -> Embedded:
    """The embeddings of all images in `batches`, on `device`, the backbone in evaluation mode.

    `flip` adds the embedding of the mirrored image before the row is normalised, as is usual for faces: twice the work.
    `autocast_dtype` runs the backbone under autocast. Each module's training flag is put back afterwards, whatever
    happens, frozen layers' included. Without any batch the rows are (0, 0)-shaped, and `gathered` takes them. A row of
    zeros stays one, of length 0.
    """
    units, labels = [torch.empty(0, 0, device=device)], [torch.empty(0, dtype=torch.int64, device=device)]
    norms = [torch.empty(0, device=device)]
    with _evaluation_mode(backbone), torch.no_grad():
        for images, batch_labels in batches:
            images = images.to(device, non_blocking=True)
            with torch.autocast(device.type, autocast_dtype, enabled=autocast_dtype is not None):
                views = [backbone(images), backbone(images.flip(-1))] if flip else [backbone(images)]
            unit, norm = unit_rows(torch.stack(views).float().sum(0))
            units.append(unit)
            norms.append(norm.flatten().masked_fill(norm.flatten() == torch.inf, 0.0))
            labels.append(batch_labels.to(device, torch.int64, non_blocking=True).flatten())
    return Embedded(torch.cat(units[1:] or units), torch.cat(labels), torch.cat(norms))


@contextmanager
def _evaluation_mode(backbone: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training
