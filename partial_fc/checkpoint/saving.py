"""What a run leaves on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from partial_fc.classifier import ShardedClassifier
from partial_fc.world import World


def save_checkpoint(
    folder: Path, step: int, backbone: nn.Module, head: ShardedClassifier, world: World, facts: dict[str, Any]
) -> Path:
    """Write ``folder/step-<step>`` from all ranks and return it. Three barriers; every rank writes its own shard.

    ``facts`` go into the manifest. BatchNorm's running statistics, which each rank keeps of its own images, are
    averaged over the ranks first: what is saved, evaluated and trained on is one network.
    """
    final = folder / f"step-{step:08d}"
    partial = folder / f"step-{step:08d}.partial"
    if world.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    average_buffers(backbone, world)
    world.barrier()
    torch.save(
        {"classes": (head.shard.start, head.shard.stop), "state": head.state_dict()},
        head_file(partial, world.rank, world.size),
    )
    if world.rank == 0:
        torch.save(backbone.state_dict(), partial / "backbone.pt")
    world.barrier()
    if world.rank == 0:
        manifest = {
            "step": step,
            "num_classes": head.num_classes,
            "embedding_dim": head.embedding_dim,
            "head_parts": world.size,
            **facts,
        }
        finish(partial, final, manifest)
    world.barrier()
    return final


def head_file(folder: Path, part: int, parts: int) -> Path:
    """Where one part of the head lies in a checkpoint's ``folder``."""
    return folder / f"head-{part:05d}-of-{parts:05d}.pt"


def finish(partial: Path, final: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest into ``partial``, which holds all else, and let it appear as ``final``."""
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def average_buffers(module: nn.Module, world: World) -> None:
    """Replace every floating-point buffer by its mean over the ranks. One all-reduce of them all."""
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    if world.size == 1 or not buffers:
        return
    flat = world.all_sum(torch.cat([buffer.reshape(-1) for buffer in buffers])) / world.size
    with torch.no_grad():
        for buffer, part in zip(buffers, torch.split(flat, [b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))
