"""The measures of published protocols in words: tables for the screen and for a page."""

from __future__ import annotations

from pathlib import Path

from launch.evaluation.tables import measure_table, print_table
from launch.pages.protocol import MeasureTable, write_protocol_page
from launch.protocols.ijb import MEAN, IjbEvaluation
from partial_fc.protocols.distractors import AmongDistractors
from partial_fc.protocols.templates import Identification, Verification


def show_ijb(evaluation: IjbEvaluation, path: Path, name: str) -> None:
    """Prints a table for each protocol, and writes the page beside ``path``, where the measures are."""
    pooling, counts = evaluation.pooling, evaluation.counts
    parts = {"norms": pooling.norm_weight, "detector scores": pooling.detector_score, "mirror images": pooling.flip}
    used = " and ".join(part for part, is_used in parts.items() if is_used) or "unit embeddings alone"
    tables, roc = list[MeasureTable](), list[tuple[float, float, float]]()
    if (one_to_one := evaluation.verification) is not None:
        genuine, impostor = (one_to_one.counts[kind] for kind in ("genuine_pairs", "impostor_pairs"))
        heading = f"1:1, {genuine:,} pairs of one person, {impostor:,} pairs of two"
        tables.append(MeasureTable(heading, _rates(one_to_one)))
        roc = one_to_one.roc
    for gallery, found in evaluation.identification.items():
        tables.append(MeasureTable(_gallery_in_words(gallery, found), _shares(found)))
    lead = f"{counts['templates']:,} templates of {counts['images']:,} pictures, pooled with {used}."
    cmc = {name: found.cmc for name, found in evaluation.identification.items() if name != MEAN}
    page = path.with_suffix(".html")
    write_protocol_page(page, title=name, lead=lead, tables=tables, roc=roc, cmc=cmc)
    _show(f"{name}: {lead}", tables, path, page)


def show_among_distractors(evaluation: AmongDistractors, path: Path) -> None:
    """Prints the measures as a table, and writes the page beside ``path``, where the measures are."""
    counts = evaluation.counts
    lead = (
        f"{counts['probes']:,} probes among {counts['distractors']:,} distractors: {counts['genuine_pairs']:,} pairs "
        f"of one person, {counts['impostor_pairs']:,} pairs of a probe and a distractor."
    )
    if same := counts["impostor_pairs_of_cosine_1"]:
        lead += f" {same:,} of the latter have a cosine of 1: they are the same picture in both sets."
    rows = [(f"rank-{rank}", f"{share:.4f}") for rank, share in evaluation.rank.items()]
    tables = [MeasureTable("Among distractors", rows + _rates(evaluation))]
    page = path.with_suffix(".html")
    cmc = {"each mate among all distractors": evaluation.cmc}
    write_protocol_page(page, title="Among distractors", lead=lead, tables=tables, roc=evaluation.roc, cmc=cmc)
    _show(lead, tables, path, page)


def _show(lead: str, tables: list[MeasureTable], path: Path, page: Path) -> None:
    print(lead)
    for heading, rows in tables:
        table = measure_table(heading)
        for row in rows:
            table.add_row(*row)
        print_table(table)
    print(f"{page}  the same with curves")
    print(f"{path}  the same figures for programs")


def _rates(found: Verification | AmongDistractors) -> list[tuple[str, str]]:
    rates = [(f"TAR at FAR {far}", f"{tar:.4f}") for far, tar in found.tar_at_far.items()]
    return [("equal error rate", f"{found.eer:.4f}"), ("best accuracy", f"{found.best_accuracy:.4f}"), *rates]


def _shares(found: Identification) -> list[tuple[str, str]]:
    closed = [(f"rank-{rank}, closed set", f"{share:.4f}") for rank, share in found.rank.items()]
    return closed + [(f"TPIR at FPIR {fpir}, open set", f"{tpir:.4f}") for fpir, tpir in found.tpir_at_fpir.items()]


def _gallery_in_words(name: str, found: Identification) -> str:
    mated, unmated = found.counts["probes_with_mate"], found.counts["probes_without"]
    return f"1:N, {name}: {found.counts['gallery']:,} templates, {mated:,} probes with a mate, {unmated:,} without"
