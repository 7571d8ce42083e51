"""The site is built without a warning, every link in it leads somewhere, and its references leave nothing out."""

from __future__ import annotations

import argparse
import subprocess
import sys
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from document_blocks import ROOT
from fences import sections_in

import partial_fc
from launch.cli import command_parser
from launch.config.run import Config
from launch.config.section import Section


class Page(HTMLParser):
    """What a page of the site links to, the names that it can be linked by, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.text = path, ""
        self.links, self.names = list[str](), set[str]()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [value for name in ("href", "src") if (value := given.get(name))]
        self.names |= {value for name in ("id", "name") if (value := given.get(name))}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as ``make docs`` builds it."""
    (line,) = [each for each in (ROOT / "Makefile").read_text().splitlines() if "-m sphinx" in each]
    words, out = line.split()[1:], tmp_path_factory.mktemp("site")
    assert words[-2:] == ["docs", "build/docs"]
    command = [sys.executable, *words[:-1], str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def leads(pages: dict[Path, Page], path: Path, link: str) -> bool:
    """Whether ``link`` on the page ``path`` has a target; one to another site is not looked at."""
    parts = urlsplit(link)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if parts.scheme:
        return True
    return target.exists() and (
        not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].names
    )


def test_every_link_leads_to_a_file_and_a_name_in_it(site: Path, pages: dict[Path, Page]) -> None:
    links = [(path, link) for path, page in pages.items() for link in page.links]
    dead = [f"{path.relative_to(site)}: {link}" for path, link in links if not leads(pages, path, link)]
    assert dead == []


def test_every_public_name_of_the_library_is_in_the_reference(site: Path) -> None:
    *_, entries = (site / "objects.inv").read_bytes().split(b"\n", maxsplit=4)  # four lines, then names and kinds
    words = (line.split() for line in zlib.decompress(entries).decode().splitlines())
    found = {name for name, kind, *_ in words if kind.startswith("py:")}
    assert {f"partial_fc.{name}" for name in partial_fc.__all__} <= found


def keys(section: type[Section]) -> Iterator[tuple[str, str | None]]:
    """Each key of a section and of those in it, and what it says of itself; a loss's own name says enough."""
    for name, field in section.model_fields.items():
        below = sections_in(field.annotation)
        for each in below:
            yield from keys(each)
        if not below and not (name == "name" and field.description is None):
            yield name, field.description


def test_every_key_of_the_configuration_is_in_the_reference_with_its_meaning(
    pages: dict[Path, Page], site: Path
) -> None:
    text, found = pages[site / "reference" / "configuration.html"].text, dict(keys(Config))
    assert {"epochs", "inter_class_weight", "blur_pixels", "most_skipped", "share"} <= set(found)
    assert [
        name for name, meaning in found.items() if name not in text or not meaning or meaning[1:30] not in text
    ] == []


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings[-1:]
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield name
                yield from options(command)


def test_every_command_and_every_option_is_in_the_reference(pages: dict[Path, Page], site: Path) -> None:
    text = pages[site / "reference" / "commands.html"].text
    assert [
        word for word in options(command_parser()) if word not in (*("--help", "--version"), "") and word not in text
    ] == []
    assert "told to end by SIGTERM" in text, "the exit codes"
