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

from data_pipeline import Source
from data_pipeline.identities import identity_names
from data_pipeline.verification_bin import BinSource
from launch import build, sets
from launch.config import Config, ConfigError, load_config, resolved_yaml
from launch.embeddings import embeddings
from launch.errors import reported
from launch.pairs import PairList, read_pairs
from launch.report_page import PairPicture, write_report
from partial_fc import World
from partial_fc.checkpoint import latest_checkpoint
from partial_fc.evaluation import Evaluation, PairEvaluation, evaluate, evaluate_pairs
from partial_fc.functional.example_pairs import hardest_pairs
from partial_fc.world import local_device, process_group


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
    parser.add_argument("--data", type=Path, help="another set of held-out identities than the config's data.evaluate")
    parser.add_argument("--weights", type=Path, help="another state dict than the last checkpoint's")
    parser.add_argument("--pairs", type=Path, help=_PAIRS_HELP)
    parser.add_argument("--flip", action="store_true", help="add the mirrored image's embedding, as is usual for faces")
    parser.add_argument("--out", type=Path, help="where the results go; RUN_DIR unless given")


_PAIRS_HELP = (
    "a list of pairs of the held-out images such as LFW's pairs.txt: accuracy over its folds; or a set of pairs with "
    "images of its own such as lfw.bin: these alone, accuracy over ten folds and TAR at FAR, in OUT/evaluation-lfw.json"
)


def forwarded(arguments: argparse.Namespace) -> list[str]:
    """The arguments again, for the ranks."""
    options = {name: vars(arguments)[name[2:]] for name in ("--data", "--weights", "--pairs", "--out")}
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return [str(arguments.run_dir), *words, *(["--flip"] if arguments.flip else [])]


def run(arguments: argparse.Namespace) -> None:
    """Evaluate what ``arguments`` name."""
    config = load_config(arguments.run_dir / "config.yaml")
    source, pairs = _opened(config, arguments)  # what cannot be used is refused before there is a process group
    weights = arguments.weights or latest_checkpoint(arguments.run_dir / "checkpoints")
    backbone = build.backbone(config, weights)
    device, out = local_device(), arguments.out or arguments.run_dir
    with process_group() as world:
        backbone = backbone.to(device)
        if isinstance(source, BinSource):
            path = out / f"evaluation-{arguments.pairs.stem}.json"
            of_pairs = evaluate_pair_set(config, backbone, source, world, device, path=path, flip=arguments.flip)
            if world.rank == 0:
                print_pair_results(of_pairs, arguments.pairs, path)
            return
        evaluation = evaluate_backbone(
            config,
            backbone,
            source,
            world,
            device,
            run_dir=arguments.run_dir,
            out=out,
            flip=arguments.flip,
            pairs=pairs,
        )
        if world.rank == 0:
            print_results(evaluation, out)


def _opened(config: Config, arguments: argparse.Namespace) -> tuple[Source, PairList | None]:
    """The images to embed, those of a set of pairs where one is given, else the held-out ones; and a list of pairs."""
    if arguments.pairs is not None and arguments.pairs.suffix.lower() == ".bin":
        if arguments.data is not None:
            raise ConfigError(f"--data {arguments.data}: {arguments.pairs} has images of its own; give one of the two")
        return BinSource(arguments.pairs), None
    held_out = arguments.data or config.data.evaluate
    if held_out is None:
        raise ConfigError(f"{arguments.run_dir}/config.yaml names no data.evaluate: give --data PATH")
    source = sets.open_records(held_out, config)
    return source, arguments.pairs and read_pairs(arguments.pairs, source.labels, identity_names(source, held_out))


def evaluate_backbone(
    config: Config,
    backbone: nn.Module,
    source: Source,
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
    unit_ND, labels_N = embeddings(config, backbone, source, world, device, flip=flip)
    evaluation = evaluate(unit_ND, labels_N, world, *(pairs or ()))
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


def print_results(evaluation: Evaluation, out: Path) -> None:
    """The measures as a table, and where the rest is."""
    counts = evaluation.counts
    table = _table(f"{counts['images']:,} images of {counts['identities']:,} identities not seen in training")
    table.add_row("rank-1, leave one out", f"{evaluation.rank1:.4f}")
    _add_rates(table, evaluation)
    if evaluation.kfold_accuracy is not None:
        table.add_row("accuracy on the list of pairs", _with_deviation(evaluation.kfold_accuracy))
    console = Console()
    console.print(table)
    for name, what in _WRITTEN.items():
        if (out / name).exists():
            console.print(f"{out / name}  {what}", highlight=False, soft_wrap=True)


def print_pair_results(evaluation: PairEvaluation, pairs: Path, path: Path) -> None:
    """The measures as a table, and where they were written."""
    genuine, impostor = (evaluation.counts[kind] for kind in ("genuine_pairs", "impostor_pairs"))
    table = _table(f"{pairs.name}: {genuine:,} pairs of one identity, {impostor:,} pairs of two")
    table.add_row("accuracy over ten folds", _with_deviation(evaluation.kfold_accuracy))
    _add_rates(table, evaluation)
    console = Console()
    console.print(table)
    console.print(f"{path}  the same figures for programs", highlight=False, soft_wrap=True)


def _table(title: str) -> Table:
    table = Table(title=title)
    table.add_column("measure")
    table.add_column("value", justify="right")
    return table


def _add_rates(table: Table, evaluation: Evaluation | PairEvaluation) -> None:
    table.add_row("equal error rate", f"{evaluation.eer:.4f}")
    table.add_row("best accuracy", f"{evaluation.best_accuracy:.4f}")
    for far, tar in evaluation.tar_at_far.items():
        table.add_row(f"TAR at FAR {far}", f"{tar:.4f}")


def _with_deviation(figure: tuple[float, float]) -> str:
    mean, deviation = figure
    return f"{mean:.4f} ± {deviation:.4f}"


_WRITTEN = {
    "report.html": "open this one: curves, ROC, right and wrong pairs",
    "evaluation.json": "the same figures for programs",
    "metrics.jsonl": "the course of training, a line per interval",
    "config.yaml": "the whole configuration of the run",
    "checkpoints": "backbone.pt and the head, by step",
}


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


if __name__ == "__main__":
    sys.exit(main())
