"""A configuration read from YAML, and written again."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from launch.config.run import Config
from launch.config.section import LARGEST, Section

_STRAY_BYTES = re.compile("[\udc80-\udcff]")  # as Python has them in the names of files

_LONGEST_SHOWN, _LONGEST_REASON = 80, 1000  # characters of a value that is refused, and of what is said of it


class ConfigError(Exception):
    """A configuration that cannot be used: the message names the key and what to do. Raised before any rank starts."""


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in ``path`` with ``a.b=c`` overrides applied. ConfigError for anything it cannot use."""
    try:
        content = path.read_bytes()
        if path.suffix == ".py":
            raise ConfigError(f"a config is YAML: partial-fc import arcface_torch-config {path} --out OUR.yaml")
        tree = _tree(_decoded(content))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections (key: value), got {type(tree).__name__}")
    for override in overrides:
        _apply_override(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(_explained(error))) from error


class _Loader(yaml.SafeLoader):
    """YAML's plain values, and no key twice in one section. A path may have bytes that are not UTF-8."""

    def check_printable(self, data: str) -> None:
        super().check_printable(_STRAY_BYTES.sub("?", data))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first_lines: dict[str, int] = {}
        for key, _ in node.value:
            line, first = key.start_mark.line + 1, first_lines.get(key.value)
            if first is not None:
                raise ConfigError(f"the key {key.value!r} stands twice, in lines {first} and {line}: keep one of them")
            first_lines[key.value] = line
        return super().construct_mapping(node, deep)


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    """A number that can be counted with; nothing below is asked to write down one of thousands of digits."""
    try:
        number: int = loader.construct_yaml_int(node)
    except ValueError:
        number = LARGEST + 1
    if abs(number) > LARGEST:
        line = node.start_mark.line + 1
        raise ConfigError(f"line {line}: {_cut(node.value, _LONGEST_SHOWN)} is beyond ±{LARGEST:,}, the largest number")
    return number


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def _decoded(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _tree(text: str) -> Any:
    return yaml.load(text, _Loader)


def resolved_yaml(config: Config) -> str:
    """The whole configuration, defaults included, as YAML that :func:`load_config` reads back."""
    return yaml_text(config.model_dump(mode="json"))


def yaml_text(tree: dict[str, Any]) -> str:
    """``tree`` as YAML, its keys in their order."""
    return yaml.safe_dump(tree, sort_keys=False)


def absolute(config: Config) -> Config:
    """``config`` with every path from the root on, so that it means the same in any folder."""
    made: Config = _absolute(config)
    return made


def _absolute(value: Any) -> Any:
    if isinstance(value, Path):
        return value.absolute()
    if isinstance(value, tuple):
        return tuple(map(_absolute, value))
    if isinstance(value, Section):
        return value.model_copy(update={name: _absolute(each) for name, each in value})
    return value


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected KEY=VALUE, such as schedule.epochs=3")
    *sections, name = key.split(".")
    node = tree
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override}: {section} is a value, not a section")
    try:
        node[name] = _tree(text)
    except ConfigError as error:
        raise ConfigError(f"--set {key}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: {_shown(text)} is not a YAML value") from error


def _explained(error: ValidationError) -> Iterable[str]:
    for problem in error.errors():
        key = _key(problem["loc"])
        if problem["type"] == "missing":
            yield f"{key!r} is missing"
        elif problem["type"] == "value_error":
            said = _cut(str(problem["ctx"]["error"]), _LONGEST_REASON)
            yield f"{key}: {said}" if key else said
        elif problem["type"] == "union_tag_invalid":
            known = [name.strip("'") for name in problem["ctx"]["expected_tags"].split(", ")]
            nearest = get_close_matches(problem["ctx"]["tag"], known, n=1, cutoff=0.0)[0]
            named = _shown(problem["ctx"]["tag"])
            yield f"{key}.name: none is called {named}; the nearest is {nearest!r} of {', '.join(known)}"
        else:
            yield f"{key}: {_cut(problem['msg'], _LONGEST_REASON)}, got {_shown(problem['input'])}"


def _key(location: tuple[int | str, ...]) -> str:
    """The key at pydantic's ``location``: between "objective" and its keys that has the objective's name too."""
    key = ""
    for before, word in zip((None, *location), location, strict=False):
        if before == "stages":
            key += f", stage {int(word) + 1}:"
        elif before != "objective":
            key += f"{'' if not key else ' ' if key.endswith(':') else '.'}{word}"
    return key.removesuffix(":")


def _shown(value: Any) -> str:
    return _cut(repr(value), _LONGEST_SHOWN)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."
