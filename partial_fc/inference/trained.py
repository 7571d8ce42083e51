"""The network of a run, a checkpoint or a file of weights, and the facts about it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from partial_fc.backbones import backbone
from partial_fc.checkpoint.layout import CheckpointFolder, Manifest, latest_checkpoint
from partial_fc.checkpoint.networks import Network, misfit, network_of
from partial_fc.checkpoint.state_dicts import behind_prefix, weights_in
from partial_fc.inference.facts import Facts


def trained_network(path: Path, input_size: int | None = None) -> tuple[nn.Module, Facts]:
    """The network at ``path`` in evaluation mode, on the CPU, in float32; and what is known of it.

    ``path`` is a run's folder (its last checkpoint), a checkpoint's folder, or a file of weights in any wrapping.
    ``input_size`` is for weights that do not say it: several sizes have the same shapes, of which the largest multiple
    of 8 is taken otherwise. ValueError for what is none of these, or of no network here.
    """
    checkpoint = _checkpoint(path)
    facts = facts_of(checkpoint.manifest()) if checkpoint is not None else None
    file = checkpoint.backbone if checkpoint is not None else path
    weights = weights_in(file).tensors
    if facts is None:
        facts = _facts_of_file(file, weights)
    facts = replace(facts, input_size=input_size or facts.input_size)
    network = backbone(facts.network, width=facts.width, embedding_dim=facts.embedding_dim, input_size=facts.input_size)
    wanted = network.state_dict()
    if (problem := misfit(weights, wanted)) is not None:
        raise ValueError(f"the weights in {file} do not fit: {problem}")
    network.load_state_dict(behind_prefix(weights, wanted) or {})
    return network.float().eval(), facts


def weights_digest(network: nn.Module) -> str:
    """Sixteen hexadecimal digits that differ between networks of other weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def facts_of(manifest: Manifest) -> Facts | None:
    """What a checkpoint's manifest says of its network; None where it does not say which network that is."""
    config: Mapping[str, Any] = manifest.facts.get("config", {})
    data: Mapping[str, Any] = manifest.facts.get("data", {})
    sizes, images = config.get("backbone", {}), config.get("data", {})
    if not {"name", "width", "embedding_dim"} <= sizes.keys() or "image_size" not in images:
        return None
    stages = config.get("schedule", {}).get("stages") or [{}]
    names = [(stage.get("objective") or config.get("objective", {})).get("name", "") for stage in stages]
    return Facts(
        *(sizes["name"], sizes["width"], sizes["embedding_dim"], images["image_size"]),
        objective=", then ".join(names),
        identities=str(manifest.num_classes),
        step=str(manifest.step),
        data=str(data.get("fingerprint", "")),
    )


def _checkpoint(path: Path) -> CheckpointFolder | None:
    """The checkpoint at ``path``, or the last one of the run there; None for a file."""
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder; expected a run, a checkpoint or a file of weights")
    if not path.is_dir():
        return None
    is_run = (path / "checkpoints").is_dir()
    return CheckpointFolder(latest_checkpoint(path / "checkpoints") if is_run else path)


def _facts_of_file(file: Path, weights: Mapping[str, Tensor]) -> Facts:
    """What the file says itself, or what the shapes of its weights tell."""
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as opened:
            kept = opened.metadata() or {}
        if "network" in kept:
            return Facts.of_texts(kept)
    told = network_of(weights)
    if told is None:
        raise ValueError(f"{file} holds the weights of no network here")
    return _facts(told[0])


def _facts(network: Network) -> Facts:
    return Facts(network.name, network.width, network.embedding_dim, network.input_size)
