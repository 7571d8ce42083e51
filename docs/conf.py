"""The site that `make docs` builds of these pages, and the two references that it writes itself, from the sources.

A page of the references holds a marker, ``<!-- written: commands -->``, in whose place the text is put when the page is
read. Every word of it comes from what the commands and the configuration are read by: nothing here can grow old.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import partial_fc  # noqa: E402
from launch import errors  # noqa: E402
from launch.cli import command_parser  # noqa: E402
from launch.config.run import Config  # noqa: E402
from launch.config.section import Section  # noqa: E402

project = "Partial FC"
version = release = partial_fc.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"{project} {version}"
html_static_path, html_css_files = ["_static"], ["site.css"]
smartquotes = False  # quotations stand as the sources have them
html_copy_source = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
pygments_style, pygments_dark_style = "friendly", "monokai"
myst_heading_anchors = 4
default_role = "literal"  # docstrings write `name`
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
maximum_signature_line_length = 100
USAGE_WIDTH = 100
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def commands() -> str:
    """Every command of ``partial-fc`` with its arguments, and the exit codes."""
    parser = command_parser()
    parts = [part for name, command, said in subcommands(parser) for part in described(command, name, said, 2)]
    codes = re.findall(r"^  (\d+) +(.*)$", errors.EXIT_CODES, re.MULTILINE)
    rows = "\n".join(f"| {code} | {cell(said)} |" for code, said in codes)
    return "\n\n".join([*parts, "## Exit codes", f"| code | what happened |\n|---:|---|\n{rows}", rest_of_codes()])


def rest_of_codes() -> str:
    """What ``partial-fc --help`` says after its table of exit codes."""
    return cell(errors.EXIT_CODES.splitlines()[-1]) + "."


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """The name, the parser and the help of each command right below ``parser``."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help or "" for each in action._choices_actions}
            yield from ((name, command, helps.get(name, "")) for name, command in action.choices.items())


def described(command: argparse.ArgumentParser, name: str, said: str, level: int) -> Iterator[str]:
    """A section on ``command``: what it does, how it is called, its arguments; then the commands below it."""
    command.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=USAGE_WIDTH)
    yield f"{'#' * level} {name}"
    yield ". ".join(capital(text) for text in (cell(said), (command.description or "").rstrip(".")) if text) + "."
    yield f"```text\n{command.format_usage().removeprefix('usage: ').rstrip()}\n```"
    actions = [
        each for each in command._actions if not isinstance(each, argparse._HelpAction | argparse._SubParsersAction)
    ]
    if actions:
        rows = [f"| {called(action)} | {meaning_of(action)} |" for action in actions]
        yield "\n".join(["| argument | meaning |", "|---|---|", *rows])
    for below, parser, text in subcommands(command):
        yield from described(parser, f"{name} {below}", text, level + 1)


def called(action: argparse.Action) -> str:
    """How an argument is written: its name, or its names and what stands behind them."""
    value = action.metavar or action.dest.upper() if action.nargs != 0 else ""
    value = "|".join(map(str, action.choices)) if action.choices and len(list(action.choices)) < 9 else value
    return f"`{' '.join([', '.join(action.option_strings) or '', str(value)]).strip()}`".replace("|", r"\|")


def meaning_of(action: argparse.Action) -> str:
    """What an argument's help says, and whether it must be given."""
    needed = "; needed" if action.required and action.option_strings else ""
    return capital(cell((action.help or "").replace("%%", "%")) + needed).lstrip("; ")


def configuration() -> str:
    """Every key of the configuration: a section of the page for each section of the file."""
    return "\n\n".join(sections(Config, "", set()))


def sections(section: type[Section], path: str, told: set[type[Section]]) -> Iterator[str]:
    """The table of ``section``, which stands at ``path``, then those of the sections in it that are not ``told``."""
    told.add(section)
    yield f"## {f'`{path}`' if path else 'At the top'}"
    yield prose((section.__doc__ or "").strip())
    yield "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows_of(section, path)])
    for name, field in section.model_fields.items():
        for below, place in sections_in(field.annotation, f"{path}.{name}".lstrip(".")):
            if below not in told:
                yield from sections(below, place, told)


def sections_in(annotation: Any, path: str) -> Iterator[tuple[type[Section], str]]:
    """The sections that a value of that type may be, each with its place: of several each with its name."""
    found = sections_of(annotation)
    for each in found:
        yield each, f"{path}: {{name: {get_args(each.model_fields['name'].annotation)[0]}}}" if len(found) > 1 else path


def sections_of(annotation: Any) -> list[type[Section]]:
    """The sections that a key of this type may hold."""
    return [each for each in parts(annotation) if isinstance(each, type) and issubclass(each, Section)]


def parts(annotation: Any) -> Iterator[Any]:
    """The types that ``annotation`` is made of."""
    inner = [each for each in get_args(annotation) if not hasattr(each, "discriminator")]
    if not inner or get_origin(annotation) is Literal:
        yield annotation
    for each in inner if get_origin(annotation) is not Literal else ():
        yield from parts(each)


def rows_of(section: type[Section], path: str) -> Iterator[str]:
    """A row of the table for each key."""
    for name, field in section.model_fields.items():
        bounds = " and ".join(
            f"{sign} {getattr(bound, word):g}"
            for bound in field.metadata
            for word, sign in BOUNDS.items()
            if hasattr(bound, word)
        )
        kind = f"{typed(field.annotation)}{f', {bounds}' if bounds else ''}"
        default = "needed" if field.is_required() else f"`{shown(field.get_default(call_default_factory=True))}`"
        if isinstance(field.default, Section):
            place = re.sub(r"[^\w-]", "", f"{path}{name}")
            default = "`{name: adacos}`" if name == "objective" else f"[below](#{place})"
        yield f"| `{name}` | {kind} | {default} | {capital(cell(field.description or meaning(field.annotation)))} |"


def meaning(annotation: Any) -> str:
    """What a section says of itself, for a key that is one."""
    kinds = sections_of(annotation)
    return (kinds[0].__doc__ or "").strip().split("\n")[0].rstrip(".") if len(kinds) == 1 else ""


def typed(annotation: Any) -> str:
    """A type in the words of YAML."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return r" \| ".join(f"`{shown(each)}`" for each in inner)
    if origin is Annotated:
        bounds = [
            f"{sign} {getattr(each, word):g}"
            for each in getattr(inner[1], "metadata", ())
            for word, sign in BOUNDS.items()
            if hasattr(each, word)
        ]
        return ", ".join([typed(inner[0]), *([" and ".join(bounds)] if bounds else [])])
    if origin in (Union, UnionType):
        if all(isinstance(each, type) and issubclass(each, Section) for each in inner):
            return "section"
        return " or ".join(dict.fromkeys(typed(each) for each in inner))
    if origin is tuple:
        return f"list of {typed(inner[0])}s" if inner[-1] is ... else f"{len(inner)} {typed(inner[0])}s"
    names = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "`true` \\| `false`",
        Path: "path",
        NoneType: "`null`",
    }
    return names.get(annotation, "section")


def shown(value: Any) -> str:
    """A value as YAML writes it."""
    if isinstance(value, Section):
        return "{" + ", ".join(f"{name}: {shown(each)}" for name, each in value if name in value.model_fields_set) + "}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    return (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or isinstance(value, bool)
        else str(value.value if isinstance(value, Enum) else value)
    )


def prose(docstring: str) -> str:
    """A docstring as Markdown: classes are linked to the API's reference, double backticks become single ones."""
    linked = re.sub(r":class:`([^`]+)`", r"{py:class}`\1`", docstring)
    return re.sub(r"``([^`]+)``", r"`\1`", linked)


def cell(text: str) -> str:
    """``text`` in one line, for a cell of a table."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", r"\<").replace("*", r"\*")


def capital(text: str) -> str:
    """``text`` with a capital at its beginning, unless it begins with a name."""
    return text[:1].upper() + text[1:] if text[1:2].islower() or text[1:2] == " " else text


WRITTEN: dict[str, Callable[[], str]] = {"commands": commands, "configuration": configuration}


def is_outside(path: Path) -> bool:
    """Whether a link to ``path`` leads to a folder, or to a page that the site does not have."""
    return path.is_dir() or (path.suffix == ".md" and not path.resolve().is_relative_to(ROOT / "docs"))


def fill(app: Sphinx, page: str, text: list[str]) -> None:
    """Put the written parts into ``page``; of a link to what is no page of the site its words are left."""
    for name, written in WRITTEN.items():
        if (marker := f"<!-- written: {name} -->") in text[0]:
            text[0] = text[0].replace(marker, written())
    folder = (Path(app.srcdir) / page).parent
    text[0] = re.sub(
        r"\[([^\]]+)\]\(([^)#:]+)(?:#[^)]*)?\)",
        lambda link: link[1] if is_outside(folder / link[2]) else link[0],
        text[0],
    )


def setup(app: Sphinx) -> None:
    """What Sphinx calls: the pages with written parts are read anew in each build."""
    app.connect("source-read", fill)
    app.connect("env-get-outdated", lambda *_: [f"reference/{name}" for name in WRITTEN])
