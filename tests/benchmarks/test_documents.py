"""The parts of a document that programs write: between their markers, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.documents import publish, table, with_part

EMPTY = "before\n<!-- a -->\n<!-- /a -->\nafter {} \\1\n"
FILLED = "before\n<!-- a -->\n12 µs\n<!-- /a -->\nafter {} \\1\n"


def test_a_part_replaces_what_stood_between_its_markers_and_nothing_else() -> None:
    assert with_part(EMPTY, "a", "12 µs") == FILLED
    assert with_part(with_part(EMPTY, "a", "old"), "a", "12 µs") == FILLED
    assert with_part(FILLED, "a", "12 µs") == FILLED


@pytest.mark.parametrize("document", ["", "<!-- a -->", "<!-- /a --><!-- a -->", "<!-- a --><!-- /a -->" * 2])
def test_a_document_without_its_two_markers_is_left_alone(document: str) -> None:
    with pytest.raises(ValueError, match="needs the lines <!-- a --> and <!-- /a -->, each once and in this order"):
        with_part(document, "a", "body")


def test_a_result_is_printed_and_goes_where_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, document = tmp_path / "result.json", tmp_path / "page.md"
    document.write_text(EMPTY, encoding="utf-8")
    publish({"µs": 12}, "a", "12 µs", kept=None, document=None)
    assert document.read_text(encoding="utf-8") == EMPTY
    assert not kept.exists()
    publish({"µs": 12}, "a", "12 µs", kept=kept, document=document)
    assert json.loads(kept.read_text(encoding="utf-8")) == {"µs": 12}
    assert document.read_text(encoding="utf-8") == FILLED
    assert capsys.readouterr().out == "12 µs\n" * 2


def test_text_is_set_to_the_left_and_figures_to_the_right() -> None:
    assert table(("what", "s"), [("a", "1")]) == "| what | s |\n| --- | ---: |\n| a | 1 |"
