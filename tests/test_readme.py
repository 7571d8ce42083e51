"""What the README shows runs as it stands."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
UNTRAINED_LOSS = 6.9  # ln(1000)
TELL_THREADS = """
from pathlib import Path
print("threads", *(file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")))
"""


def printed_by_script(command: list[str], folder: Path) -> str:
    found = re.search(r"<!-- script -->\n```python\n(.*?)```\n<!-- /script -->", README, re.DOTALL)
    assert found is not None
    (folder / "script.py").write_text(found[1] + TELL_THREADS)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "script.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.processes
@pytest.mark.parametrize("size", [1, 2])
def test_the_script_of_the_readme_trains_on_one_process_and_on_two(size: int, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"] if size > 1 else []
    printed = printed_by_script([sys.executable, *launcher], tmp_path)
    losses = re.findall(r"loss (\d+\.\d+), scale", printed)  # ranks may write into one line
    assert len(losses) == size
    assert len(set(losses)) == 1
    assert float(losses[0]) < 0.8 * UNTRAINED_LOSS
    assert printed.count("threads") == size
    assert "gloo_runloop" not in printed  # such a thread could abort the process while Python ends


def packages_of_the_tree() -> dict[str, str]:
    """Each folder that the tree of the README names, ``data_pipeline.formats.tar``, and what stands beside it."""
    found, path = {}, list[str]()
    for line in README.split("## The house")[1].split("```")[1].strip("\n").splitlines():
        if entry := re.fullmatch(r"( *)(\w+)/ +(\S.*)", line):
            path[len(entry[1]) // 2 :] = [entry[2]]
            found[".".join(path)] = entry[3]
    return found


def test_the_tree_of_the_readme_names_every_package_in_its_own_words() -> None:
    wings = ("partial_fc", "data_pipeline", "launch", "benchmarks")
    files = [file for wing in wings for file in (ROOT / wing).rglob("__init__.py")]
    pages = {
        ".".join(file.parent.relative_to(ROOT).parts): ast.get_docstring(ast.parse(file.read_text())) for file in files
    }
    first_lines = {package: (page or "").splitlines()[0].rstrip(".") for package, page in pages.items()}
    tree = packages_of_the_tree()
    assert {package: words for package, words in tree.items() if package.split(".")[0] in wings} == first_lines
    assert {package for package in tree if "." not in package} == {*wings, "configs", "docker", "docs", "tests"}


def test_the_tree_of_the_readme_names_every_file_of_the_halls() -> None:
    tree = README.split("## The house")[1].split("```")[1]
    halls = [
        file.name
        for wing in ("partial_fc", "data_pipeline", "launch", "benchmarks")
        for file in (ROOT / wing).glob("*.py")
    ]
    assert set(halls) - {"__init__.py"} == set(re.findall(r"\w+\.py", tree.split("configs/")[0]))
