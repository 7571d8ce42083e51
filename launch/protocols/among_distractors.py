"""Held-out people searched among distractors, in the manner of MegaFace."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from launch.config.run import Config
from launch.evaluation.embeddings import embeddings
from launch.evaluation.held_out import HeldOut
from launch.writing import write_text
from partial_fc import World
from partial_fc.protocols.distractors import AmongDistractors, among_distractors


def evaluate_among_distractors(
    config: Config,
    backbone: nn.Module,
    probes: HeldOut,
    distractors: HeldOut,
    world: World,
    device: torch.device,
    *,
    path: Path,
    flip: bool = False,
) -> AmongDistractors:
    """The measures of ``backbone``; rank 0 writes them to ``path``. Each rank embeds and searches its share."""
    found = embeddings(config, backbone, probes, world, device, flip=flip)
    others = embeddings(config, backbone, distractors, world, device, flip=flip)
    evaluation = among_distractors(found.unit_ND, found.labels_N, others.unit_ND, world)
    if world.rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"flip": flip, **probes.facts, **evaluation.to_json()}, indent=1) + "\n")
    return evaluation
