"""Who may know whom, read from the sources: the layers, one home for each outside world, no circle."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MATHS = {"__future__", "collections", "dataclasses", "fractions", "functools", "jaxtyping", "math", "torch", "typing"}
NOT_SOURCES = {"tests", "build", "dist"}
FORMATS = ("folders", "recordio", "table", "tar", "verification_bin")
BENCHMARKS = ("chaos", "classifier", "concepts", "data", "losses")


def rooms(package: str, *names: str) -> set[str]:
    return {f"{package}.{name}" for name in names}


LIBRARIES = {"partial_fc", "data_pipeline"}
MEASURING = rooms(  # what every benchmark may use
    *("benchmarks", "arguments", "documents", "machine", "memory", "plot_style", "processes", "results", "workers")
)
LAYERS = {  # a package, and the project's packages that it may import; the longest name that fits a module holds
    "partial_fc.functional": {"partial_fc.functional"},
    "partial_fc.backbones": {"partial_fc.backbones"},
    "partial_fc.reports": {"partial_fc.reports"},
    "partial_fc.rows": rooms("partial_fc", "rows", "functional", "fused", "scratch"),
    "partial_fc.sweeps": rooms(
        "partial_fc", "sweeps", "rows", "functional", "compiling", "fused", "scratch", "rules", "slopes", "world"
    ),
    "partial_fc": {"partial_fc"},  # less what MAY_IMPORT keeps for others
    "data_pipeline.files": {"data_pipeline.files"},
    "data_pipeline.images": {"data_pipeline.images"},
    "data_pipeline.order": rooms("data_pipeline", "order", "hashing"),
    "data_pipeline.augment": rooms("data_pipeline", "augment", "hashing"),
    "data_pipeline.synthetic": rooms("data_pipeline", "synthetic", "hashing"),
    "data_pipeline.sets": rooms("data_pipeline", "sets", "source", "hashing"),
    **{  # no format knows another
        f"data_pipeline.formats.{form}": rooms("data_pipeline", f"formats.{form}", "files", "source", "complaints")
        for form in FORMATS
    },
    "data_pipeline.formats": rooms("data_pipeline", "formats", "sets", "source"),
    "data_pipeline.loader": rooms(  # and no format: the loader reads a Source
        "data_pipeline", "loader", "images", "order", "augment", "source", "hashing", "read_ahead"
    ),
    "data_pipeline.checking": rooms(
        *("data_pipeline", "checking", "images", "order", "sets", "formats", "source", "workers", "files"),
        "loader",  # verify decodes as training does
    ),
    "data_pipeline.packing": rooms(
        "data_pipeline", "packing", "images", "sets", "formats", "synthetic", "source", "workers", "complaints", "files"
    ),
    "data_pipeline.aligning": rooms(
        "data_pipeline", "aligning", "images", "formats", "source", "workers", "complaints", "files"
    ),
    "data_pipeline.converting": rooms(
        *("data_pipeline", "converting", "checking", "images", "order", "sets", "formats", "source", "workers"),
        *("files", "read_ahead"),
    ),
    "data_pipeline": rooms("data_pipeline", "source"),  # source, complaints, hashing, workers, read_ahead: the ground
    "launch.config": {"launch.config", "data_pipeline.augment"},  # and no torch: a refusal is said at once
    "launch.command_line": rooms("launch", "command_line", "config", "units")
    | rooms("data_pipeline", "images", "formats"),
    "launch.assembly": rooms("launch", "assembly", "config", "units", "run_files", "writing") | LIBRARIES,
    "launch.pages": rooms("launch", "pages", "units", "figure_style", "writing")
    | {"launch.embedding", "partial_fc.evaluation", "data_pipeline.checking", "data_pipeline.source"},
    "launch.resilience": rooms("launch", "resilience", "assembly", "config") | LIBRARIES,
    "launch.planning": {"partial_fc", *rooms("launch", "planning", "assembly", "config", "units", "figure_style")},
    "launch.evaluation": rooms("launch", "evaluation", "assembly", "config", "pages", "resilience", "units", "writing")
    | LIBRARIES,
    "launch.watching": rooms("launch", "watching", "config", "run_files", "units"),  # and no torch: a look is quick
    "launch.protocols": rooms("launch", "protocols", "evaluation", "assembly", "config", "pages", "writing")
    | LIBRARIES,
    "launch.embedding": rooms("launch", "embedding") | LIBRARIES,
    "launch.commands": rooms("launch", "commands", "command_line", "assembly", "config", "pages", "planning")
    | rooms("launch", "embedding", "errors", "processes", "units", "watching", "writing")
    | LIBRARIES,
    "launch": {"launch", *LIBRARIES},
    **{
        f"benchmarks.{name}": {f"benchmarks.{name}", *MEASURING, "launch", *LIBRARIES} for name in BENCHMARKS
    },  # no benchmark knows another
    "benchmarks": {"benchmarks", "launch", *LIBRARIES},
    "configs": set(),
    "docker": set(),  # before anything is installed
    "docs": {"launch", *LIBRARIES},
}
MAY_IMPORT = {  # a name, and the only ones outside it that may import it; the longest name that fits holds
    "partial_fc.planning": {"launch", "benchmarks"},
    "partial_fc.checkpoint": {"launch", "benchmarks", "partial_fc.inference"},
    "partial_fc.functional.reference": set(),  # the tests' oracle
    "launch.cli": {"docs"},  # the reference of the commands
    "launch.commands": {"launch.cli"},
}
HOMES = {  # an outside name, and the only modules that may speak it; the longest name that fits holds
    "torch.distributed": {"partial_fc.world"},
    "torch.distributed.checkpoint": {"partial_fc.checkpoint"},
    "torch.distributed.run": {"launch.processes"},  # torchrun itself, which starts processes and is no collective
    "torch.distributed.elastic": {"launch.processes"},
    "grafana_foundation_sdk": {"launch.monitoring.dashboard"},
    "prometheus_client": {"partial_fc.reports.prometheus", "partial_fc.reports.endpoint"},
    "prometheus_client.parser": {"launch.watching.endpoints"},
    "torch.utils.tensorboard": {"partial_fc.reports.tensorboard"},
    "sphinx": {"docs.conf"},
    "rich": {"partial_fc.reports.terminal", "data_pipeline.workers", "data_pipeline.packing.record_set", "launch"},
    "apex": {"launch.assembly.apex_optimizers", "partial_fc.backbones.layer_norm"},
    "nvidia.dali": {"data_pipeline.loader.dali_graph"},
    "safetensors": {"partial_fc.checkpoint", "partial_fc.inference"},
    "pyarrow": {
        *("data_pipeline.files.arrow_texts", "data_pipeline.formats.folders.image_list"),
        *("data_pipeline.formats.folders.list_lines", "data_pipeline.formats.table"),
        "launch.protocols.ijb_files",
        "partial_fc.inference.embedding_file",
    },
    **{name: {"partial_fc.inference"} for name in ("faiss", "onnx", "onnxruntime", "onnxscript")},
    "PIL": {
        "partial_fc.inference.pictures",
        "data_pipeline.aligning",
        "data_pipeline.images",
        "data_pipeline.checking",
        "data_pipeline.packing",
        "launch.pages",
        "benchmarks",
    },
    "matplotlib": {
        "launch.figure_style",
        "launch.pages.curves",
        "launch.pages.figures",
        "launch.pages.protocol_figures",
        "launch.planning.figure",
        "benchmarks",
    },
    "jinja2": {"launch.pages.page"},
    "pydantic": {"launch.config", "launch.units", "benchmarks.results"},
    "yaml": {"launch.config.loading"},
}
LONGEST_FILE = 250  # lines
FULLEST_FOLDER = 20  # source files


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
        target = longest(dict(LAYERS), name)
        if (home := longest(dict(HOMES), name)) and not any(covers(speaker, module) for speaker in HOMES[home]):
            found.append(f"{module}: {name} is spoken in {' and '.join(sorted(HOMES[home]))} only")
        if target is not None and not any(covers(allowed, name) for allowed in LAYERS[layer]):
            found.append(f"{module}: {layer} may not import {target}")
        kept = longest(dict(MAY_IMPORT), name)
        if kept is not None and not any(covers(user, module) for user in MAY_IMPORT[kept] | {kept}):
            found.append(f"{module}: {kept} is not for it")
        if layer == "partial_fc.functional" and target is None:
            state = covers("torch.nn", name) and not covers("torch.nn.functional", name)
            if state or name.partition(".")[0] not in MATHS:
                found.append(f"{module}: pure maths does not speak {name}")
    return found


def all_faults(root: Path) -> list[str]:
    return [fault for module, file in module_files(root).items() for fault in faults(module, spoken(file))]


def circle(root: Path, package: Callable[[str], str] = lambda module: module) -> list[str]:
    """The modules of one import circle, or nothing; of packages where ``package`` names that of a module."""
    files = module_files(root)
    edges: dict[str, set[str]] = {}
    for module, file in files.items():
        targets = {longest(dict.fromkeys(files), name) for name in spoken(file)} - {None}
        places = {package(target) for target in targets if target is not None and target != module}
        edges[package(module)] = edges.get(package(module), set()) | (places - {package(module)})
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def room(module: str) -> str:
    """The room of a module: the sub-package of its wing, or the module itself where it stands in the hall."""
    wing, *rest = module.split(".")
    return ".".join([wing, *rest[:1]])


def test_every_module_speaks_only_what_it_may() -> None:
    assert all_faults(ROOT) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    assert circle(ROOT) == []


def test_no_room_imports_another_in_a_circle() -> None:
    assert circle(ROOT, room) == []


def test_no_file_is_longer_than_a_reader_holds() -> None:
    lengths = {module: len(file.read_text().splitlines()) for module, file in module_files(ROOT).items()}
    assert {module: length for module, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_folder_is_fuller_than_a_look_takes_in() -> None:
    counts = Counter(file.parent for file in module_files(ROOT).values())
    assert {folder: count for folder, count in counts.items() if count > FULLEST_FOLDER} == {}


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
        ("partial_fc.sweeps.sweep", "import torch.distributed as dist"),
        ("partial_fc.sweeps.sweep", "from torch import distributed"),
        ("partial_fc.sweeps.sweep", "import torch\ntorch.distributed.barrier()"),
        ("partial_fc.world", "from torch.distributed.checkpoint import save"),
        ("partial_fc.sweeps.sweep", "from launch.config.run import Config"),
        ("partial_fc.sweeps.sweep", "def late():\n    import data_pipeline"),
        ("partial_fc.loop", "from partial_fc.checkpoint.saving import Saver"),
        ("partial_fc.sweeps.sweep", "from partial_fc.planning.memory import plan"),
        ("partial_fc.rows.optimizers", "from partial_fc.classifier import ShardedClassifier"),
        ("partial_fc.world", "from partial_fc.functional import reference"),
        ("data_pipeline.order.shuffled", "from partial_fc import World"),
        ("data_pipeline.formats.tar.source", "from data_pipeline.formats.recordio.source import RecordSource"),
        ("data_pipeline.loader.image_loader", "from data_pipeline.formats.by_path import source_at"),
        ("data_pipeline.source", "from data_pipeline.sets import joined"),
        ("data_pipeline.converting.parts", "import pyarrow"),
        ("benchmarks.losses.runs", "from benchmarks.data import costs"),
        ("launch.pages.report", "from launch.config.run import Config"),
        ("launch.train", "from launch.commands import plan"),
        ("launch.train", "from prometheus_client import Gauge"),
        ("launch.train", "import nvidia.dali.fn"),
        ("launch.train", "import yaml"),
        ("partial_fc.functional.margins", "from torch import nn"),
        ("partial_fc.functional.margins", "import torch\ntorch.nn.Parameter()"),
        ("partial_fc.functional.margins", "from partial_fc.rows.optimizers import RowSGD"),
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


def test_the_checker_finds_a_planted_circle_of_rooms(tmp_path: Path) -> None:
    plant(tmp_path, "partial_fc.left.first", "from partial_fc.right import second")
    plant(tmp_path, "partial_fc.right.second", "import math")
    plant(tmp_path, "partial_fc.right.third", "import partial_fc.left.fourth")
    plant(tmp_path, "partial_fc.left.fourth", "import math")
    assert circle(tmp_path) == []
    assert set(circle(tmp_path, room)) == {"partial_fc.left", "partial_fc.right"}


def plant(root: Path, module: str, text: str) -> None:
    file = root.joinpath(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
