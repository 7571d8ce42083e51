"""The pages for users: their fences and tables, and whether what they show can be given."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_args

from launch import cli
from launch.config.run import Config
from launch.config.section import Section

DOCS = Path(__file__).parents[1] / "docs"
LANGUAGES = {"bash", "yaml", "python", "text"}


def fences(page: str, language: str | None = None) -> list[str]:
    """What stands in the fences of ``page``, of one language or of all."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in found} <= LANGUAGES, "every fence has a language"
    return [text for name, text in found if language in (None, name)]


def commands(page: str) -> list[list[str]]:
    """The words of each ``partial-fc`` command in the fences and in the running text."""
    lines = [line for text in fences(page, "bash") for line in text.replace("\\\n", " ").splitlines()]
    running = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    lines += [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", running)]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("partial-fc ")]


def refuse_what_does_not_parse(page: str) -> None:
    """SystemExit for a command that the command line does not know, or whose options it does not."""
    given = commands(page)
    assert given
    for words in given:
        cli.command_parser().parse_args(words)


def sections(page: str) -> list[str]:
    """The YAML of ``page``: that of its fences, and that in the running text, such as ``backbone: {name: r50}``."""
    return [*fences(page, "yaml"), *re.findall(r"`((?:data|backbone|objective|classifier|schedule): \{[^`]*\})`", page)]


def config_keys(section: type[Section] = Config, before: str = "") -> set[str]:
    """Every key of the configuration by its whole name: ``run_dir``, ``data.augmentation.mirror``."""
    keys: set[str] = set()
    for name, field in section.model_fields.items():
        keys.add(f"{before}{name}")
        for inner in sections_in(field.annotation):
            keys |= config_keys(inner, f"{before}{name}.")
    return keys


def sections_in(annotation: Any) -> list[type[Section]]:
    """The sections that a key of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_in(part)]


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below ``heading``, without the head."""
    lines = page.split(f"\n## {heading}\n")[1].split("\n## ")[0].splitlines()
    table = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[2:]]


def spans(cell: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def broken_links(page: str, folder: Path) -> list[str]:
    """The links of ``page`` to files that are not there, or to headings that they do not have."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        text = (folder / path).read_text() if path and (folder / path).is_file() else page if not path else ""
        if (path and not (folder / path).exists()) or (anchor and anchor not in _anchors(text)):
            broken.append(link)
    return broken


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
