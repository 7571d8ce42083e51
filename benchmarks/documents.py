"""The parts of a document that a program writes, each between two markers of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def with_part(document: str, name: str, body: str) -> str:
    """`document` with `body` between `<!-- name -->` and `<!-- /name -->`, all else as it was.

    ValueError unless each marker stands there once, in this order.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if document.count(begin) != 1 or document.count(end) != 1 or document.index(begin) > document.index(end):
        raise ValueError(f"the document needs the lines {begin} and {end}, each once and in this order")
    before, _, rest = document.partition(begin)
    return f"{before}{begin}\n{body}\n{end}{rest.partition(end)[2]}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
    """A Markdown table; the first `text_columns` are set to the left, the figures after them to the right."""
    rules = ["---"] * text_columns + ["---:"] * (len(columns) - text_columns)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, rules, *rows])
