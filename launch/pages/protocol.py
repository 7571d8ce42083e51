"""A published protocol's measures as one HTML file: tables, DET curve, cumulative match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from launch.pages.page import write_page
from launch.pages.protocol_figures import cmc_figure, det_figure


class MeasureTable(NamedTuple):
    """A heading, and a name and a value for each measure."""

    heading: str
    rows: list[tuple[str, str]]


def write_protocol_page(
    path: Path,
    *,
    title: str,
    lead: str,
    tables: Sequence[MeasureTable],
    roc: Sequence[tuple[float, float, float]],
    cmc: Mapping[str, Sequence[float]],
) -> None:
    """Write the page; a curve without points is left out. `lead` says in a sentence what was measured.

    The first measure of each table is shown large.
    """
    figures = [("DET, on normal deviates", det_figure(roc))] if roc else []
    if cmc:
        figures.append(("Cumulative match", cmc_figure(cmc)))
    tiles = [(*rows[0], heading) for heading, rows in tables]
    write_page(path, "protocol.html", title=title, lead=lead, tiles=tiles, tables=tables, figures=figures)
