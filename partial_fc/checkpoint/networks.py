"""Which backbone a state dict is of, told from its keys and shapes; and what keeps it from fitting another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from partial_fc.backbones import BACKBONES, backbone
from partial_fc.checkpoint.state_dicts import behind_prefix

_PUBLISHED_WIDTH, _PUBLISHED_SIZE = 64, 112
_SIZES = range(16, 1025, 8)  # several image sizes have the same shapes: the largest multiple of 8 stands for them


class Network(NamedTuple):
    """What :func:`partial_fc.backbones.backbone` is told to make a network."""

    name: str
    width: int
    embedding_dim: int
    input_size: int

    def __str__(self) -> str:
        return (
            f"{self.name} of width {self.width} for images of {self.input_size} pixels, "
            f"with embeddings of {self.embedding_dim} dimensions"
        )


def network_of(state: Mapping[str, Tensor]) -> tuple[Network, dict[str, Tensor]] | None:
    """The network that ``state`` is of, and its entries of ``state``; None where no network has these keys and shapes.

    Of networks that differ in name and width alone it is the first that is no wider than the published ones.
    """
    fitting = None
    for network, entries in _fitting(state):
        if network.width <= _PUBLISHED_WIDTH:
            return network, entries
        fitting = fitting or (network, entries)
    return fitting


@cache
def parameter_names(network: Network) -> tuple[str, ...]:
    """The names of its parameters, frozen ones too, in the order in which torch's optimizers number them."""
    return tuple(name for name, _ in _made(network).named_parameters())


def misfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """What keeps ``state`` from loading into a network whose state dict is ``wanted``, in a line; None if it loads."""
    entries = behind_prefix(state, wanted)
    if entries is not None:
        shapes = {key: (tuple(entries[key].shape), tuple(wanted[key].shape)) for key in entries}
        others = [f"{key} is {given}, not {needed}" for key, (given, needed) in shapes.items() if given != needed]
    else:
        missing = [f"{key} is missing" for key in wanted if key not in state]
        others = missing or [f"{key} is unexpected" for key in state if key not in wanted]
    if not others:
        return None
    told = network_of(state)
    kind = f"they are those of {told[0]}" if told else "they are those of no network here"
    more = f" and {len(others) - 1} more like it" if len(others) > 1 else ""
    return f"{kind}; {others[0]}{more}"


def _fitting(state: Mapping[str, Tensor]) -> Iterator[tuple[Network, dict[str, Tensor]]]:
    for name in BACKBONES:
        entries = behind_prefix(state, _shapes(Network(name, _PUBLISHED_WIDTH, 512, _PUBLISHED_SIZE)))
        network = entries and _sized(name, entries)
        if entries and network:
            yield network, entries


def _sized(name: str, entries: Mapping[str, Tensor]) -> Network | None:
    """The network ``name`` whose shapes are those of ``entries``; None where no sizes give them."""
    published = _shapes(Network(name, _PUBLISHED_WIDTH, 512, _PUBLISHED_SIZE))
    filters = next(key for key, shape in published.items() if len(shape) == 4)
    width, rest = divmod(_PUBLISHED_WIDTH * len(entries[filters]), published[filters][0])
    embedding_dim = len([entries[key] for key, shape in published.items() if len(shape) == 1][-1])
    if rest or not width:
        return None
    try:
        network = Network(name, width, embedding_dim, _PUBLISHED_SIZE)
        if not _has_shapes(network, entries):
            network = network._replace(input_size=_input_size(network, entries))
    except ValueError:  # a width that the network cannot have
        return None
    return network if _has_shapes(network, entries) else None


def _input_size(network: Network, entries: Mapping[str, Tensor]) -> int:
    """The image size at which ``network`` has as many weights as ``entries``; the number of weights grows with it."""

    def weights(input_size: int) -> int:
        return sum(_shapes(network._replace(input_size=input_size))[key].numel() for key in entries)

    place = bisect_right(_SIZES, sum(value.numel() for value in entries.values()), key=weights)
    return _SIZES[max(place - 1, 0)]


def _has_shapes(network: Network, entries: Mapping[str, Tensor]) -> bool:
    shapes = _shapes(network)
    return all(value.shape == shapes[key] for key, value in entries.items())


@cache
def _shapes(network: Network) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in _made(network).state_dict().items()}


def _made(network: Network) -> nn.Module:
    """The network without any numbers in it."""
    with torch.device("meta"):
        return backbone(
            network.name,
            embedding_dim=network.embedding_dim,
            input_size=network.input_size,
            width=network.width,
        )
