"""A configuration in Python, read and never run: assignments of literals, and arithmetic of them."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_ARITHMETIC: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_DICTIONARIES = ("dict", "edict", "EasyDict")


class PythonConfig(NamedTuple):
    """The keys of a config with their values, and what of the file was not understood: line and text."""

    values: dict[str, Any]
    unread: list[tuple[int, str]]


def read_python_config(path: Path, name: str = "config") -> PythonConfig:
    """What the file at ``path`` assigns to ``name``: ``config.key = value``, ``config["key"] = value``, ``edict(...)``.

    Values are literals, names assigned before, and arithmetic of numbers. ValueError for a file that is not Python.
    """
    try:
        statements = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        place = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise ValueError(f"{path}{place} is not Python: {error.args[0] if error.args else error}") from error
    names: dict[str, Any] = {name: {}}
    unread = [(line.lineno, " ".join(ast.unparse(line).split())) for line in statements if not _is_read(line, names)]
    values = names[name]
    return PythonConfig(values if isinstance(values, dict) else {}, unread)


def _is_read(line: ast.stmt, names: dict[str, Any]) -> bool:
    try:
        _follow(line, names)
    except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError):
        return False
    return True


def _follow(line: ast.stmt, names: dict[str, Any]) -> None:
    """Do what ``line`` does to ``names``; one of the errors above where that is more than an assignment."""
    if isinstance(line, ast.Import | ast.ImportFrom | ast.Pass) or _is_text(line):
        return
    if not isinstance(line, ast.Assign) or len(line.targets) != 1:
        raise ValueError("no assignment")
    value, target = _value(line.value, names), line.targets[0]
    match target:
        case ast.Name(id=key):
            names[key] = value
        case ast.Attribute(value=owner, attr=key):
            _value(owner, names)[key] = value
        case ast.Subscript(value=owner, slice=index):
            _value(owner, names)[_value(index, names)] = value
        case _:
            raise ValueError("no plain target")


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=key):
            return names[key]
        case ast.Attribute(value=owner, attr=key):
            return _value(owner, names)[key]
        case ast.Subscript(value=owner, slice=index):
            return _value(owner, names)[_value(index, names)]
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return [_value(part, names) for part in parts]
        case ast.Dict(keys=keys, values=parts):
            return {_key(key, names): _value(part, names) for key, part in zip(keys, parts, strict=True)}
        case ast.UnaryOp(op=sign, operand=part):
            return _ARITHMETIC[type(sign)](_number(part, names))
        case ast.BinOp(left=left, op=sign, right=right):
            return _ARITHMETIC[type(sign)](_number(left, names), _number(right, names))
        case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=parts, keywords=pairs) if (
            called in _DICTIONARIES
        ):
            laid = [_value(part, names) for part in parts]
            return {**dict(*laid), **{_keyword(pair): _value(pair.value, names) for pair in pairs}}
    raise ValueError("no literal")


def _number(node: ast.expr, names: dict[str, Any]) -> int | float:
    """A number: a product of a text or a list could fill the memory."""
    value = _value(node, names)
    if not isinstance(value, int | float):
        raise TypeError(value)
    return value


def _key(node: ast.expr | None, names: dict[str, Any]) -> Any:
    if node is None:
        raise ValueError("an unpacked dictionary")
    return _value(node, names)


def _keyword(pair: ast.keyword) -> str:
    if pair.arg is None:
        raise ValueError("an unpacked dictionary")
    return pair.arg
