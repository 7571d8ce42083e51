"""Who may know whom, read from the sources: the layers, one home for each outside world, no circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MATHS = {"__future__", "collections", "dataclasses", "fractions", "functools", "jaxtyping", "math", "torch", "typing"}
NOT_SOURCES = {"tests", "build", "dist"}
LAYERS = {  # a package, and the project's packages that it may import; the longest name that fits a module holds
    "partial_fc.functional": {"partial_fc.functional"},
    "partial_fc": {"partial_fc"},
    "data_pipeline": {"data_pipeline"},
    "launch": {"launch", "partial_fc", "data_pipeline"},
    "benchmarks": {"benchmarks", "launch", "partial_fc", "data_pipeline"},
    "configs": set(),
    "docs": {"partial_fc", "data_pipeline", "launch"},
}
HOMES = {  # an outside name, and the only modules that may speak it; the longest name that fits holds
    "torch.distributed": {"partial_fc.world"},
    "torch.distributed.checkpoint": {"partial_fc.checkpoint"},
    "torch.distributed.run": {"launch.cli"},  # torchrun itself, which starts processes and is no collective
    "torch.distributed.elastic": {"launch.cli"},
    "prometheus_client": {"partial_fc.prometheus"},
    "nvidia.dali": {"data_pipeline.dali_pipeline", "data_pipeline.dali_graph"},
    "yaml": {"launch.config"},
}


def module_files(root: Path) -> dict[str, Path]:
    """Module name -> file of every source below ``root``, outside the tests and hidden folders."""
    files = [file for file in root.rglob("*.py") if not NOT_SOURCES & set(file.relative_to(root).parts)]
    visible = [file for file in files if not any(part.startswith(".") for part in file.relative_to(root).parts)]
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in visible}


def spoken(file: Path) -> set[str]:
    """Every dotted name that a file imports, whole (``a.b`` for ``from a import b``), or reaches through attributes."""
    names: set[str] = set()
    reached: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and (dotted := ast.unparse(node)).startswith("torch."):
            reached.add(dotted)
    return names | {whole for whole in reached if not any(other.startswith(f"{whole}.") for other in reached)}


def covers(prefix: str, name: str) -> bool:
    return f"{name}.".startswith(f"{prefix}.")


def longest(prefixes: dict[str, object], name: str) -> str | None:
    return max((prefix for prefix in prefixes if covers(prefix, name)), key=len, default=None)


def faults(module: str, names: set[str]) -> list[str]:
    """What ``module`` speaks and must not."""
    layer, found = longest(dict(LAYERS), module), []
    if layer is None:
        return [f"{module}: belongs to no layer"]
    for name in sorted(names):
        home = HOMES.get(longest(dict(HOMES), name) or "", {module})
        target = longest(dict(LAYERS), name)
        if module not in home:
            found.append(f"{module}: {name} is spoken in {' and '.join(sorted(home))} only")
        if target is not None and not any(covers(allowed, name) for allowed in LAYERS[layer]):
            found.append(f"{module}: {layer} may not import {target}")
        if layer == "partial_fc.functional" and target is None:
            state = covers("torch.nn", name) and not covers("torch.nn.functional", name)
            if state or name.partition(".")[0] not in MATHS:
                found.append(f"{module}: pure maths does not speak {name}")
    return found


def all_faults(root: Path) -> list[str]:
    return [fault for module, file in module_files(root).items() for fault in faults(module, spoken(file))]


def circle(root: Path) -> list[str]:
    """The modules of one import circle, or nothing."""
    files = module_files(root)
    edges: dict[str, set[str]] = {}
    for module, file in files.items():
        targets = {longest(dict.fromkeys(files), name) for name in spoken(file)} - {None}
        edges[module] = {target for target in targets if target is not None and target != module}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_module_speaks_only_what_it_may() -> None:
    assert all_faults(ROOT) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    assert circle(ROOT) == []


def test_every_source_file_is_looked_at() -> None:
    modules = module_files(ROOT)
    assert {"partial_fc", "partial_fc.world", "partial_fc.functional.softmax", "data_pipeline", "launch"} <= set(
        modules
    )
    for package in ("partial_fc", "data_pipeline", "launch"):
        assert set((ROOT / package).rglob("*.py")) <= set(modules.values())


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("partial_fc.rows", "import torch.distributed as dist"),
        ("partial_fc.rows", "from torch import distributed"),
        ("partial_fc.rows", "import torch\ntorch.distributed.barrier()"),
        ("partial_fc.world", "from torch.distributed.checkpoint import save"),
        ("partial_fc.rows", "from launch.config import Config"),
        ("partial_fc.rows", "def late():\n    import data_pipeline"),
        ("data_pipeline.order", "from partial_fc import World"),
        ("launch.train", "from prometheus_client import Gauge"),
        ("launch.train", "import nvidia.dali.fn"),
        ("launch.train", "import yaml"),
        ("partial_fc.functional.margins", "from torch import nn"),
        ("partial_fc.functional.margins", "import torch\ntorch.nn.Parameter()"),
        ("partial_fc.functional.margins", "from partial_fc.rows import RowSGD"),
        ("partial_fc.functional.margins", "import pathlib"),
        ("strange", "import math"),
    ],
)
def test_the_checker_finds_a_planted_violation(tmp_path: Path, module: str, line: str) -> None:
    plant(tmp_path, module, line)
    assert len(all_faults(tmp_path)) >= 1


def test_the_checker_finds_a_planted_circle(tmp_path: Path) -> None:
    plant(tmp_path, "partial_fc.first", "from partial_fc.second import name")
    plant(tmp_path, "partial_fc.second", "import partial_fc.third")
    plant(tmp_path, "partial_fc.third", "import math")
    assert circle(tmp_path) == []
    plant(tmp_path, "partial_fc.third", "from partial_fc import first")
    assert set(circle(tmp_path)) == {"partial_fc.first", "partial_fc.second", "partial_fc.third"}


def plant(root: Path, module: str, text: str) -> None:
    file = root.joinpath(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
