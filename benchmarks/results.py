"""What a benchmark keeps: one JSON file a case, whole or not there, from which every table and figure is made."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from data_pipeline.files.whole_file import WholeFile

Kind = TypeVar("Kind")
Case = TypeVar("Case")
Settings = Mapping[str, Any]


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


class SweepError(CaseError):
    """A case that ended without a result, as every other one would."""


def unfinished(planned: Mapping[str, Settings], folder: Path, kept: Callable[[Path], Settings]) -> list[str]:
    """The names in `planned` that have no result in `folder`; `kept` tells a result's settings.

    ValueError where a result is there but from other settings: figures of two settings must not share a table.
    """
    waiting = []
    for name, here in planned.items():
        path = folder / f"{name}.json"
        there = kept(path) if path.exists() else None
        if there is None:
            waiting.append(name)
        elif differing := [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]:
            named = ", ".join(f"{key} is {there.get(key)} there and {here.get(key)} here" for key in differing)
            raise ValueError(f"{path} comes from other settings ({named}): remove it")
    return waiting


def sweep(waiting: Mapping[str, Case], folder: Path, measured: Callable[[Case], tuple[Mapping[str, Any], str]]) -> int:
    """Measure all that is `waiting` and keep it in `folder`. 0: done; 1: a case failed; 130: stopped by Ctrl-C.

    `measured` gives the result and what a reader is told of it. A case that cannot be measured here (ValueError) is
    left out, one that fails (CaseError) is left for the next start; a SweepError ends the sweep.
    """
    failures = 0
    for number, (name, case) in enumerate(waiting.items(), 1):
        print(f"[{number}/{len(waiting)}] {name}", flush=True)
        began = time.perf_counter()
        try:
            result, told = measured(case)
        except ValueError as error:
            print(f"    left out: {error}", flush=True)
        except CaseError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failures += 1
            if isinstance(error, SweepError):
                break
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", file=sys.stderr)
            return 130
        else:
            write_json(result, folder / f"{name}.json")
            print(f"{told}\n  in {time.perf_counter() - began:.0f} s", flush=True)
    return 1 if failures else 0


def print_plan(planned: Mapping[str, str], waiting: Mapping[str, object]) -> None:
    """Tell what is planned, a line each, and what of it is there."""
    for name, line in planned.items():
        print(f"{'to do' if name in waiting else 'done':6}{name:42}{line}")
    print(f"{len(waiting)} of {len(planned)} to do")
