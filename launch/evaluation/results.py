"""A backbone measured, and what is written about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_pipeline.formats.verification_bin.source import BinSource
from data_pipeline.source import Source
from launch.assembly.run_folder import RunFolder
from launch.config.loading import resolved_yaml
from launch.config.run import Config
from launch.evaluation.embeddings import embeddings
from launch.evaluation.lfw_pairs import PairList
from launch.pages.report import PairPicture, write_report
from partial_fc import World
from partial_fc.evaluation import Evaluation, PairEvaluation, evaluate, evaluate_pairs
from partial_fc.functional.example_pairs import hardest_pairs


def evaluate_backbone(
    config: Config,
    backbone: nn.Module,
    source: Source,
    world: World,
    device: torch.device,
    *,
    metrics: Path,
    out: RunFolder,
    flip: bool = False,
    pairs: PairList | None = None,
) -> Evaluation:
    """The measures of ``backbone`` on ``source``; rank 0 writes them and the report into ``out``.

    Each rank embeds its share of the images; all ranks hold all embeddings afterwards. ``metrics`` are the run's own,
    for the report's curves.
    """
    unit_ND, labels_N = embeddings(config, backbone, source, world, device, flip=flip)
    evaluation = evaluate(unit_ND, labels_N, world, *(pairs or ()))
    if world.rank == 0:
        out.path.mkdir(parents=True, exist_ok=True)
        out.evaluation.write_text(json.dumps(evaluation.to_json(), indent=1) + "\n")
        identities = f"{evaluation.counts['identities']:,} unseen identities"
        write_report(
            out.report,
            evaluation,
            title=f"{config.run_dir.name}: {config.objective.name} on {identities}",
            config=resolved_yaml(config),
            metrics=_records(metrics),
            pairs=_pictures(unit_ND, labels_N, source, evaluation.operating_threshold),
        )
    return evaluation


def evaluate_pair_set(
    config: Config,
    backbone: nn.Module,
    source: BinSource,
    world: World,
    device: torch.device,
    *,
    path: Path,
    flip: bool = False,
) -> PairEvaluation:
    """The measures of ``backbone`` on the pairs of ``source``, over ten folds; rank 0 writes them to ``path``."""
    unit_ND, _ = embeddings(config, backbone, source, world, device, flip=flip)
    pairs_P2 = torch.arange(len(source)).reshape(-1, 2)
    evaluation = evaluate_pairs(unit_ND, pairs_P2, torch.from_numpy(source.is_same))
    if world.rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"flip": flip, **evaluation.to_json()}, indent=1) + "\n")
    return evaluation


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _pictures(unit_ND: Tensor, labels_N: Tensor, source: Source, threshold: float) -> list[PairPicture]:
    return [
        PairPicture(
            source.read(pair.first).tobytes(),
            source.read(pair.second).tobytes(),
            cosine=pair.cosine,
            same=pair.same,
            accepted=pair.accepted,
            first_caption=f"identity {source.label(pair.first)}",
            second_caption=f"identity {source.label(pair.second)}",
        )
        for pair in hardest_pairs(unit_ND, labels_N, threshold)
    ]
