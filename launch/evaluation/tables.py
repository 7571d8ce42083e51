"""The measures of an evaluation as tables on the screen."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from launch.assembly.run_folder import RunFolder
from partial_fc.evaluation import Evaluation, PairEvaluation
from partial_fc.functional.verification import FoldAccuracy


def print_results(evaluation: Evaluation, seen: str, out: RunFolder) -> None:
    """The measures as a table, and where the rest is; ``seen`` is what is known of these identities in training."""
    counts = evaluation.counts
    table = measure_table(f"{counts['images']:,} images of {counts['identities']:,} identities {seen}".rstrip())
    table.add_row("rank-1, leave one out", f"{evaluation.rank1:.4f}")
    _add_rates(table, evaluation)
    if evaluation.kfold_accuracy is not None:
        table.add_row("accuracy on the list of pairs", _with_error(evaluation.kfold_accuracy))
    print_table(table)
    print_places(out)


def print_places(out: RunFolder) -> None:
    """Where everything lies that a run or an evaluation left."""
    for path, what in (
        (out.report, "open this one: curves, ROC, right and wrong pairs"),
        (out.evaluation, "the same figures for programs"),
        (out.metrics, "the course of training, a line per interval"),
        (out.time_spent, "what the time of the run was spent on"),
        (out.config, "the whole configuration of the run"),
        (out.checkpoints, "backbone.pt and the head, by step"),
    ):
        if path.exists():
            print(f"{path}  {what}")


def print_pair_results(evaluation: PairEvaluation, pairs: Path, path: Path) -> None:
    """The measures as a table, and where they were written."""
    genuine, impostor = (evaluation.counts[kind] for kind in ("genuine_pairs", "impostor_pairs"))
    table = measure_table(f"{pairs.name}: {genuine:,} pairs of one identity, {impostor:,} pairs of two")
    table.add_row("accuracy over ten folds", _with_error(evaluation.kfold_accuracy))
    _add_rates(table, evaluation)
    print_table(table)
    print(f"{path}  the same figures for programs")


def print_table(table: Table) -> None:
    """Prints it; ``[red]`` in the name of a file is taken for what it is."""
    Console(highlight=False, markup=False).print(table)


def measure_table(title: str) -> Table:
    """An empty table of measures and their values."""
    table = Table(title=title)
    table.add_column("measure")
    table.add_column("value", justify="right")
    return table


def _add_rates(table: Table, evaluation: Evaluation | PairEvaluation) -> None:
    """A row for each rate of a verification."""
    table.add_row("equal error rate", f"{evaluation.eer:.4f}")
    table.add_row("best accuracy", f"{evaluation.best_accuracy:.4f}")
    for far, tar in evaluation.tar_at_far.items():
        table.add_row(f"TAR at FAR {far}", f"{tar:.4f}")


def _with_error(figure: FoldAccuracy) -> str:
    """As the field prints it, and the standard error that the protocol asks for."""
    return f"{figure.mean:.4f} ± {figure.std:.4f} (standard error {figure.standard_error:.4f})"
