"""What a benchmark keeps: one JSON file a case, whole or not there, from which every table and figure is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from data_pipeline.files.whole_file import WholeFile

Kind = TypeVar("Kind")


class CaseError(RuntimeError):
    """A case that ended without a result."""


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Keep `values` at `path`, a line for each of them. ValueError where a figure is no number."""
    lines = [f" {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in values.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with WholeFile(path) as file:
        file.write(("{\n" + ",\n".join(lines) + "\n}\n").encode())


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """The value of type `kind` that the file holds. What else stands beside the fields of a dataclass is passed over.

    ValueError if the file holds something else.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
        raise ValueError(f"{path} is no {kind.__name__.lower()} ({why}): remove it to measure again") from error
