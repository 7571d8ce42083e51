"""The measures of published protocols as tables on the screen."""

from __future__ import annotations

from pathlib import Path

from launch.evaluation.tables import add_rates, measure_table, print_table
from launch.protocols.ijb import IjbEvaluation
from partial_fc.protocols.distractors import AmongDistractors
from partial_fc.protocols.templates import Identification


def print_ijb(evaluation: IjbEvaluation, path: Path, name: str) -> None:
    """A table for each protocol, and where the measures were written."""
    pooling, counts = evaluation.pooling, evaluation.counts
    parts = {"norms": pooling.norm_weight, "detector scores": pooling.detector_score, "mirror images": pooling.flip}
    used = " and ".join(part for part, is_used in parts.items() if is_used) or "unit embeddings alone"
    print(f"{name}: {counts['templates']:,} templates of {counts['images']:,} pictures, pooled with {used}")
    if (one_to_one := evaluation.verification) is not None:
        genuine, impostor = (one_to_one.counts[kind] for kind in ("genuine_pairs", "impostor_pairs"))
        table = measure_table(f"1:1, {genuine:,} pairs of one person, {impostor:,} pairs of two")
        add_rates(table, one_to_one)
        print_table(table)
    for gallery, found in evaluation.identification.items():
        table = measure_table(_gallery_in_words(gallery, found))
        for rank, share in found.rank.items():
            table.add_row(f"rank-{rank}, closed set", f"{share:.4f}")
        for fpir, tpir in found.tpir_at_fpir.items():
            table.add_row(f"TPIR at FPIR {fpir}, open set", f"{tpir:.4f}")
        print_table(table)
    print(f"{path}  the same figures for programs")


def _gallery_in_words(name: str, found: Identification) -> str:
    mated, unmated = found.counts["probes_with_mate"], found.counts["probes_without"]
    return f"1:N, {name}: {found.counts['gallery']:,} templates, {mated:,} probes with a mate, {unmated:,} without"


def print_among_distractors(evaluation: AmongDistractors, path: Path) -> None:
    """The measures as a table, and where they were written."""
    counts = evaluation.counts
    table = measure_table(f"{counts['probes']:,} probes among {counts['distractors']:,} distractors")
    for rank, share in evaluation.rank.items():
        table.add_row(f"rank-{rank}", f"{share:.4f}")
    add_rates(table, evaluation)
    print_table(table)
    print(f"{path}  the same figures for programs")
