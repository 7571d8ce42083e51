"""The page of design decisions names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "decisions.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
DECISIONS = {
    part.splitlines()[0]: part for part in PAGE.split("\n### ")[1:]
}  # the last one has what stands below it as well
PARTS = ("**Why.**", "**Given up.**", "**Held by**")


def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def missing(page: str) -> list[str]:
    """The tests that the page names and nobody wrote."""
    known = {file: functions_of(ROOT / file) for file, _ in NAMED.findall(page) if (ROOT / file).is_file()}
    return [f"{file}::{name}" for file, name in NAMED.findall(page) if name not in known.get(file, set())]


@pytest.mark.parametrize("title", DECISIONS)
def test_a_decision_says_why_what_was_given_up_and_which_tests_hold_it(title: str) -> None:
    decision = DECISIONS[title]
    assert [part for part in PARTS if decision.count(part) != 1] == []
    assert NAMED.findall(decision.split(PARTS[-1])[1])
    assert missing(decision) == []


def test_a_test_that_is_not_there_is_found() -> None:
    assert missing("`tests/test_decisions.py::functions_of`") == []
    absent = ["tests/test_decisions.py::test_of_nothing", "tests/test_nothing.py::test_of_nothing"]
    assert missing(" ".join(f"`{name}`" for name in absent)) == absent


def test_every_page_of_the_concepts_names_tests_that_exist() -> None:
    pages = [file.read_text() for file in sorted((ROOT / "docs" / "concepts").glob("*.md"))]
    assert [page for page in pages if missing(page)] == []
    assert any(NAMED.search(page) for page in pages)
