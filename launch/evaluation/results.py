"""A backbone measured, and what is written about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_pipeline.formats.verification_bin.source import BinSource
from data_pipeline.source import Source
from launch.assembly.run_folder import RunFolder
from launch.config.evaluation import set_name
from launch.config.loading import resolved_yaml
from launch.config.run import Config
from launch.config.stages import objectives_in_words, stage_names
from launch.evaluation.embeddings import Embeddings, embeddings
from launch.evaluation.held_out import HeldOut, rows_of_pairs
from launch.pages.report import PairPicture, write_report
from launch.resilience.stopping import StopRequest
from launch.writing import write_text
from partial_fc import World
from partial_fc.evaluation import Evaluation, PairEvaluation, evaluate, evaluate_pairs
from partial_fc.functional.example_pairs import hardest_pairs


def evaluate_backbone(
    config: Config,
    backbone: nn.Module,
    held_out: HeldOut,
    world: World,
    device: torch.device,
    *,
    metrics: Path,
    out: RunFolder,
    flip: bool = False,
    step: int | None = None,
) -> Evaluation:
    """The measures of ``backbone`` on ``held_out``; rank 0 writes them and the report into ``out``.

    Each rank embeds its share of the images; all ranks hold all embeddings afterwards. ``metrics`` are the run's own,
    for the report's curves; ``step`` is the one after which this is data.evaluate's evaluation.
    """
    evaluation, found = measured(config, backbone, held_out, world, device, flip=flip)
    assert isinstance(evaluation, Evaluation)
    if world.rank == 0:
        out.path.mkdir(parents=True, exist_ok=True)
        write_text(out.evaluation, json.dumps({**held_out.facts, **evaluation.to_json()}, indent=1) + "\n")
        identities = f"{evaluation.counts['identities']:,} identities {held_out.seen}".rstrip()
        write_report(
            out.report,
            evaluation,
            seen=held_out.seen,
            title=f"{config.run_dir.name}: {objectives_in_words(config)} on {identities}",
            config=resolved_yaml(config),
            metrics=whole_records(metrics),
            evaluations=_with_this_one(whole_records(RunFolder(metrics.parent).evaluations), config, step, evaluation),
            stages=stage_names(config),
            pairs=_pictures(found, held_out.source, evaluation.operating_threshold),
        )
    return evaluation


def evaluate_pair_set(
    config: Config,
    backbone: nn.Module,
    held_out: HeldOut,
    world: World,
    device: torch.device,
    *,
    path: Path,
    flip: bool = False,
) -> PairEvaluation:
    """The measures of ``backbone`` on the pairs of a ``.bin``, over ten folds; rank 0 writes them to ``path``."""
    evaluation, _ = measured(config, backbone, held_out, world, device, flip=flip)
    assert isinstance(evaluation, PairEvaluation)
    if world.rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"flip": flip, **held_out.facts, **evaluation.to_json()}, indent=1) + "\n")
    return evaluation


def measured(
    config: Config,
    backbone: nn.Module,
    held_out: HeldOut,
    world: World,
    device: torch.device,
    *,
    flip: bool,
    stop: StopRequest | None = None,
) -> tuple[Evaluation | PairEvaluation, Embeddings]:
    """The measures of ``backbone`` on ``held_out``, the same on every rank, and its embeddings; nothing is written.

    Those of the pairs of a ``.bin``; else of all pairs, and of the list of pairs where there is one. GivenUp, on all
    ranks, where they agree meanwhile, by ``stop``, to end.
    """
    found = embeddings(config, backbone, held_out, world, device, flip=flip, stop=stop)
    if held_out.pairs is None:
        return evaluate(found.unit_ND, found.labels_N, world, norm_N=found.norm_N), found
    pairs, whole_P = rows_of_pairs(held_out.pairs, found.samples_N, len(held_out.source))
    if isinstance(held_out.source, BinSource):
        same_P = torch.from_numpy(held_out.source.is_same)[whole_P]
        return evaluate_pairs(found.unit_ND, pairs.pairs_P2, same_P, pairs.fold_P, found.norm_N), found
    return evaluate(found.unit_ND, found.labels_N, world, *pairs, found.norm_N), found


def _with_this_one(
    records: list[dict[str, Any]], config: Config, step: int | None, evaluation: Evaluation
) -> list[dict[str, Any]]:
    """``records`` and, where there are others on the way, the measure of this evaluation."""
    if not records or step is None or config.data.evaluate is None:
        return records
    return [*records, {"step": step, f"{set_name(config.data.evaluate)}.rank1": evaluation.rank1}]


def whole_records(path: Path) -> list[dict[str, Any]]:
    """What the whole lines of a file of JSON say; a process that was killed may have left a part of one behind them."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _pictures(found: Embeddings, source: Source, threshold: float) -> list[PairPicture]:
    pairs = hardest_pairs(found.unit_ND, found.labels_N, threshold)
    samples = [found.samples_N[[pair.first, pair.second]].tolist() for pair in pairs]
    return [
        PairPicture(
            source.read(first).tobytes(),
            source.read(second).tobytes(),
            cosine=pair.cosine,
            same=pair.same,
            accepted=pair.accepted,
            first_caption=f"identity {source.label(first)}",
            second_caption=f"identity {source.label(second)}",
        )
        for pair, (first, second) in zip(pairs, samples, strict=True)
    ]
