"""docs/faq.md: every complaint has its issues and something to hold; commands parse, YAML loads, Python runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml
from fences import DOCS, broken_links, config_keys, fences, refuse_what_does_not_parse, sections, spans

from data_pipeline.formats.verification_bin.source import BinSource
from launch.config.loading import load_config
from launch.config.run import Config

PAGE = (DOCS / "faq.md").read_text()
ROOT = DOCS.parent
ANSWERS = PAGE.split("\n## ")[1:]
GROUPS = 16


def test_every_answer_has_its_issues_and_a_page_or_a_test_that_shows_it() -> None:
    assert len(ANSWERS) == GROUPS
    for answer in ANSWERS:
        question = answer.splitlines()[0]
        links = re.findall(
            r"\[(?:[\w.-]+ )?#(\d+)\]\(https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/(\d+)\)", answer
        )
        assert links, question
        assert all(shown == number for shown, number in links), question
        assert re.search(r"\]\((?!https:)|`tests/", answer), question


def test_what_an_answer_names_is_there() -> None:
    assert broken_links(PAGE, DOCS) == []
    for span in spans(re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)):
        if span.startswith("tests/"):
            assert (ROOT / span).exists(), span
        if span.startswith("test_"):
            assert any(f"def {span}(" in file.read_text() for file in (ROOT / "tests").rglob("test_*.py")), span
        if re.fullmatch(r"[a-z]+\.[a-z_]+", span) and span.split(".")[0] in Config.model_fields:
            assert span in config_keys(), span


def test_every_command_parses() -> None:
    refuse_what_does_not_parse(PAGE)


@pytest.mark.parametrize("text", sections(PAGE))
def test_the_yaml_is_part_of_a_config(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"data": {"train": "x"}, **yaml.safe_load(text)}))
    load_config(path)


def test_the_script_writes_pairs_that_are_read(tmp_path: Path) -> None:
    (script,) = fences(PAGE, "python")
    environment = {**tiny.environment(), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, timeout=120, check=True)
    pairs = BinSource(tmp_path / "mine.bin")
    assert len(pairs) == 80
