"""The parts of a document that a program writes, each between two markers of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import write_json

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTHING = "–"


def with_part(document: str, name: str, body: str) -> str:
    """`document` with `body` between `<!-- name -->` and `<!-- /name -->`, all else as it was.

    ValueError unless each marker stands there once, in this order.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if document.count(begin) != 1 or document.count(end) != 1 or document.index(begin) > document.index(end):
        raise ValueError(f"the document needs the lines {begin} and {end}, each once and in this order")
    before, _, rest = document.partition(begin)
    return f"{before}{begin}\n{body}\n{end}{rest.partition(end)[2]}"


def write_part(document: Path, name: str, body: str) -> None:
    """Write `body` between the two markers of `name` in the file `document`."""
    document.write_text(with_part(document.read_text(encoding="utf-8"), name, body), encoding="utf-8")


def publish(result: Mapping[str, Any], name: str, body: str, *, kept: Path | None, document: Path | None) -> None:
    """Print `body`, what a reader is told of `result`; write the result to `kept` and the body into `document`."""
    print(body)
    if kept is not None:
        write_json(result, kept)
    if document is not None:
        write_part(document, name, body)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
    """A Markdown table; the first `text_columns` are set to the left, the figures after them to the right."""
    rules = ["---"] * text_columns + ["---:"] * (len(columns) - text_columns)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, rules, *rows])


def known(figure: float | None, form: str) -> str:
    """A cell of a table: the figure in that format, or a dash where there is none."""
    return NOTHING if figure is None else f"{figure:{form}}"
