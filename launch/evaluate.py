"""Evaluation of a run on held-out identities: ``partial-fc evaluate RUN_DIR``; training ends with it too."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from data_pipeline.dali_pipeline import sequential_batches
from data_pipeline.recordio import RecordSource
from launch import build
from launch.config import Config, ConfigError, load_config, resolved_yaml
from launch.errors import reported
from launch.pairs import PairList, identity_names, read_pairs
from launch.report_page import PairPicture, write_report
from partial_fc import World
from partial_fc.checkpoint import latest_checkpoint
from partial_fc.evaluation import Evaluation, embed, evaluate
from partial_fc.functional.example_pairs import hardest_pairs
from partial_fc.world import local_device, process_group

EMBED_BATCH = 128


def main(argv: Sequence[str] | None = None) -> int:
    """Run one rank and return its exit code (see ``launch/errors.py``)."""
    parser = argparse.ArgumentParser(prog="python -m launch.evaluate", description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    with reported() as outcome:
        run(arguments)
    return outcome.exit_code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every way of starting an evaluation shares."""
    parser.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="what training wrote: config.yaml and checkpoints/"
    )
    parser.add_argument("--data", type=Path, help="another .rec of held-out identities than the config's data.evaluate")
    parser.add_argument("--weights", type=Path, help="another state dict than the last checkpoint's")
    parser.add_argument("--pairs", type=Path, help="a list of pairs such as LFW's pairs.txt: accuracy over its folds")
    parser.add_argument("--flip", action="store_true", help="add the mirrored image's embedding, as is usual for faces")
    parser.add_argument("--out", type=Path, help="where the results go; RUN_DIR unless given")


def forwarded(arguments: argparse.Namespace) -> list[str]:
    """The arguments again, for the ranks."""
    options = {name: vars(arguments)[name[2:]] for name in ("--data", "--weights", "--pairs", "--out")}
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return [str(arguments.run_dir), *words, *(["--flip"] if arguments.flip else [])]


def run(arguments: argparse.Namespace) -> None:
    """Evaluate what ``arguments`` name."""
    config = load_config(arguments.run_dir / "config.yaml")
    held_out = arguments.data or config.data.evaluate
    if held_out is None:
        raise ConfigError(f"{arguments.run_dir}/config.yaml names no data.evaluate: give --data FILE.rec")
    weights = arguments.weights or latest_checkpoint(arguments.run_dir / "checkpoints")
    source = build.open_records(held_out)
    pairs = arguments.pairs and read_pairs(arguments.pairs, source.labels, identity_names(held_out))
    backbone = build.backbone(config, weights)
    device = local_device()
    with process_group() as world:
        evaluation = evaluate_backbone(
            config,
            backbone.to(device),
            source,
            world,
            device,
            run_dir=arguments.run_dir,
            out=arguments.out or arguments.run_dir,
            flip=arguments.flip,
            pairs=pairs,
        )
        if world.rank == 0:
            print_results(evaluation, arguments.out or arguments.run_dir)


def evaluate_backbone(
    config: Config,
    backbone: nn.Module,
    source: RecordSource,
    world: World,
    device: torch.device,
    *,
    run_dir: Path,
    out: Path,
    flip: bool = False,
    pairs: PairList | None = None,
) -> Evaluation:
    """The measures of ``backbone`` on ``source``; rank 0 writes ``evaluation.json`` and ``report.html`` into ``out``.

    Each rank embeds its share of the images; all ranks hold all embeddings afterwards. ``run_dir`` is where the run's
    own ``metrics.jsonl`` lies, for the report's curves.
    """
    share = image_share(len(source), world.rank, world.size)
    batches = sequential_batches(source, build.image_format(config, device), share, batch=EMBED_BATCH)
    dtype = torch.bfloat16 if config.backbone.autocast == "bfloat16" else None
    unit_nD, labels_n = embed(backbone, ((b.images, b.labels) for b in batches), device, dtype, flip)
    unit_nD = unit_nD.reshape(-1, config.backbone.embedding_dim)  # a rank without images does not know D
    evaluation = evaluate(unit_nD, labels_n, world, *(pairs or ()))
    unit_ND, labels_N = world.gather_rows(unit_nD), world.gather_rows(labels_n)
    if world.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        (out / "evaluation.json").write_text(json.dumps(evaluation.to_json(), indent=1) + "\n")
        identities = f"{evaluation.counts['identities']:,} unseen identities"
        write_report(
            out / "report.html",
            evaluation,
            title=f"{config.run_dir.name}: {config.objective.name} on {identities}",
            config=resolved_yaml(config),
            metrics=_records(run_dir / "metrics.jsonl"),
            pairs=_pictures(unit_ND, labels_N, source, evaluation.operating_threshold),
        )
    return evaluation


def image_share(num_images: int, rank: int, size: int) -> range:
    """The images that ``rank`` embeds: whole batches in a row, none where there are more ranks than batches.

    A batch is the same for any number of ranks, as the last digits of an embedding depend on its batch's size: so the
    figures of an evaluation do not depend on the number of ranks, at the cost of up to one batch's imbalance.
    """
    batches = -(-num_images // EMBED_BATCH)
    first, end = (min(batches * part // size * EMBED_BATCH, num_images) for part in (rank, rank + 1))
    return range(first, end)


def print_results(evaluation: Evaluation, out: Path) -> None:
    """The measures as a table, and where the rest is."""
    counts = evaluation.counts
    table = Table(title=f"{counts['images']:,} images of {counts['identities']:,} identities not seen in training")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_row("rank-1, leave one out", f"{evaluation.rank1:.4f}")
    table.add_row("equal error rate", f"{evaluation.eer:.4f}")
    table.add_row("best accuracy", f"{evaluation.best_accuracy:.4f}")
    for far, tar in evaluation.tar_at_far.items():
        table.add_row(f"TAR at FAR {far}", f"{tar:.4f}")
    if evaluation.kfold_accuracy is not None:
        mean, deviation = evaluation.kfold_accuracy
        table.add_row("accuracy on the list of pairs", f"{mean:.4f} ± {deviation:.4f}")
    console = Console()
    console.print(table)
    for name, what in _WRITTEN.items():
        if (out / name).exists():
            console.print(f"{out / name}  {what}", highlight=False, soft_wrap=True)


_WRITTEN = {
    "report.html": "open this one: curves, ROC, right and wrong pairs",
    "evaluation.json": "the same figures for programs",
    "metrics.jsonl": "the course of training, a line per interval",
    "config.yaml": "the whole configuration of the run",
    "checkpoints": "backbone.pt and the head, by step",
}


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _pictures(unit_ND: Tensor, labels_N: Tensor, source: RecordSource, threshold: float) -> list[PairPicture]:
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


if __name__ == "__main__":
    sys.exit(main())
