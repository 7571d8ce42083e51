"""The places of a rank at which a fault can happen: this table is all that knows their names in the program."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.chaos.injector import Injector
from launch import train
from partial_fc import world
from partial_fc.checkpoint import copies, layout, saving, tensor_file, writing

Name = Callable[..., str | None]

_dist: Any = vars(world)["dist"]  # torch.distributed, which is spoken in partial_fc.world only
COLLECTIVES: list[tuple[Any, str]] = [
    (world, "_all_gather"),
    (world, "_reduce_scatter"),
    (_dist, "all_reduce"),
    (_dist, "barrier"),
]


def install(injector: Injector) -> None:
    """Have this process tell ``injector`` where it is."""
    for owner, attribute in COLLECTIVES:
        _replace(owner, attribute, injector.inside)
    for owner, attribute, name in POINTS:
        _replace(owner, attribute, partial(injector.around, name=name))
    for owner, attribute, path_of in WRITTEN:
        _replace(owner, attribute, partial(_half, path_of=path_of, injector=injector))
    _replace(train, "train", partial(_told_of_steps, injector=injector))


def _named(name: str) -> Name:
    return lambda *arguments: name


def _file(path: Path) -> str:
    """Which of a checkpoint's files it is."""
    name = path.name.removesuffix(".partial")
    if name.startswith("rank-"):
        return "a rank's note" if name.endswith(".json") else "a rank's file"
    return name


def _rename(path: Path, *rest: Any) -> str | None:
    return "the new name" if path.name.startswith("step-") and path.suffix == ".partial" else None


def _latest(path: Path, *rest: Any) -> str | None:
    return "latest" if path.name.startswith(".latest.") else None


def _removal(folder: Path | str, *rest: Any) -> str | None:
    path = Path(folder)
    return "a removal" if path.name.startswith("step-") and path.suffix != ".partial" and path.exists() else None


POINTS: list[tuple[Any, str, Name]] = [  # of a save: the function, and the place that its arguments tell
    (saving.Saver, "_refuse_full_disk", _named("the disk check")),
    (copies.Copies, "__call__", _named("the copies")),
    (saving.Saver, "_begin_folder", _named("the fresh folder")),
    (writing, "write_tensor_file", lambda path, tensors: _file(path)),
    (tensor_file.SummedFile, "__exit__", lambda file, *ended: f"the sync of {_file(file.path)}"),
    (writing, "write_backbone", lambda path, state: _file(path)),
    (layout, "sync", lambda path: f"the sync of {_file(path)}"),
    (layout, "write_whole", lambda path, text: _file(path)),
    (Path, "rename", _rename),
    (Path, "replace", _latest),
    (saving, "prune", _named("the pruning")),
    (shutil, "rmtree", _removal),
]
WRITTEN: list[tuple[Any, str, Callable[..., Path]]] = [  # functions that write a file: the path among their arguments
    (writing, "write_tensor_file", lambda path, tensors: path),
    (writing, "write_backbone", lambda path, state: path),
    (layout, "write_whole", lambda path, text: path.with_name(f"{path.name}.partial")),
]


def _replace(owner: Any, attribute: str, made: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    setattr(owner, attribute, made(getattr(owner, attribute)))


def _half(function: Callable[..., Any], path_of: Callable[..., Path], injector: Injector) -> Callable[..., Any]:
    """``function``, and a place where the half of its file is all that is there, for a fault that kills."""

    def wrapped(*arguments: Any) -> Any:
        path = path_of(*arguments)
        fault = injector.due(f"half of {_file(path)}")
        result = function(*arguments)
        if fault:
            if not path.exists():  # it has its own name by now
                path.with_name(path.name.removesuffix(".partial")).rename(path)
            os.truncate(path, path.stat().st_size // 2)
            injector.act(fault)
        return result

    return wrapped


def _told_of_steps(function: Callable[..., int], injector: Injector) -> Callable[..., int]:
    def wrapped(steps: range, *, set_rates: Callable[[int], Any], **options: Any) -> int:
        def told(step: int) -> Any:
            injector.begin(step)
            return set_rates(step)

        return function(steps, set_rates=told, **options)

    return wrapped
