"""The tensors of a file, out of whatever wraps them: nested dictionaries, prefixes of the keys."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_NESTS = (
    "state_dict_backbone",
    "state_dict",
    "model_state_dict",
    "backbone",
    "model",
    "net",
)  # the first that is there
_WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}  # DDP's, torch.compile's, ...
_COUNTER = "num_batches_tracked"  # files from before torch 0.4.1 have none
_DEEPEST = 4  # dictionaries in dictionaries


def tensors_in(file: Path) -> Any:
    """What ``torch.save`` wrote, mapped and not read where it can be. ValueError for what is not tensors in the end."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; expected weights written by torch.save")
    try:
        mappable = zipfile.is_zipfile(file)  # files from before torch 1.6 are not
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mappable)
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        raise ValueError(
            f"{file} cannot be read as tensors ({type(error).__name__}): it is damaged, or holds other things than "
            "tensors, which are refused because loading them could run code"
        ) from error


class Weights(NamedTuple):
    """A network's tensors by key, and where they were found: the file, the dictionaries in it, a wrapped key."""

    tensors: dict[str, Tensor]
    place: str


def weights_in(file: Path) -> Weights:
    """The network's tensors, without the names that DDP and torch.compile add, out of dictionaries around them.

    ValueError for a file that holds no tensors by name, or several dictionaries of which none has a known name.
    """
    content, place = tensors_in(file), str(file)
    for _ in range(_DEEPEST):
        name = _network_in(content, file)
        if name is None:
            break
        content, place = content[name], f"{place}: {name}"
    named = content if isinstance(content, Mapping) else {}
    tensors = {str(key): value for key, value in named.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{file} holds no tensors by name: save what the network's state_dict() returns")
    wrapped = next((key for key in tensors if key != _unwrapped(key)), None)
    own = {_unwrapped(key): value for key, value in tensors.items()}
    return Weights(own, place if wrapped is None else f"{place}, with keys such as {wrapped},")


def behind_prefix(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor] | None:
    """The entries of ``state`` whose keys are ``wanted``, all of them, behind one prefix; None where there is none.

    Entries behind other prefixes, such as a head's beside ``backbone.``, are other modules'.
    """
    first, counted = next(iter(wanted)), _counted(wanted)
    prefixes = (key.removesuffix(first) for key in state if key == first or key.endswith(f".{first}"))
    for prefix in prefixes:
        if all(prefix + key in state for key in counted):
            inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if _counted(inner) == counted:
                return inner
    return None


def _network_in(content: Any, file: Path) -> str | None:
    """The key of the dictionary in ``content`` that has the network; None where it is ``content`` itself."""
    if not isinstance(content, Mapping):
        return None
    nested = [key for key, value in content.items() if isinstance(key, str) and isinstance(value, Mapping) and value]
    known = next((name for name in _NESTS if name in nested), None)
    if known is not None or not nested or any(isinstance(value, Tensor) for value in content.values()):
        return known
    if len(nested) > 1:
        names = ", ".join(nested)
        raise ValueError(f"{file} holds several dictionaries, {names}: save that of the network by itself")
    return nested[0]


def _unwrapped(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def _counted(keys: Collection[str]) -> set[str]:
    return {key for key in keys if not key.endswith(_COUNTER)}
