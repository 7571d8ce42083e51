"""The commands under "One million identities" in docs/performance.md, on 20 identities."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.documents import DOCS

ROOT = DOCS.parent
SECTION = (DOCS / "performance.md").read_text(encoding="utf-8").split("## One million identities")[1]
SNIPPETS = re.findall("```python\n(.*?)```", SECTION, re.DOTALL)


def printed(*words: str) -> str:
    command = [sys.executable, *words]
    return subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout


def command_of(start: str, data: Path, run: Path) -> list[str]:
    """The words after `start` of the section's command that begins so, its places and sizes replaced."""
    (line,) = re.findall(rf"^{re.escape(start)} (.*)$", SECTION.replace("\\\n", ""), re.MULTILINE)
    places = {"DIR": str(data), "RUN": str(run), "OUT": str(run.with_name("out.json"))}
    line = re.sub(r"\b(DIR|RUN|OUT)\b", lambda name: places[name[0]], line)
    sizes = {"1000000": "20", "batch_size=512": "batch_size=16", "0.0256": "1.2", "0.00256": "0.4"}
    return [re.sub("|".join(sizes), lambda size: sizes[size[0]], word) for word in shlex.split(line, comments=True)]


@pytest.mark.processes
def test_a_small_set_goes_all_the_way(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    printed("-m", "launch.cli", "pack", *command_of("/usr/bin/time -v partial-fc pack", data, run))
    assert "80 images; the least of 4" in printed(
        *("-m", "benchmarks.opening", *command_of("python -m benchmarks.opening", data, run))
    )
    printed("-m", "launch.cli", "train", *command_of("/usr/bin/time -v partial-fc train", data, run))
    first_batch, shuffle, times = SNIPPETS
    assert re.search(r"first batch \d+\.\d\d s", printed("-c", first_batch, str(data)))
    assert "4,000,000 images exactly once\nmean way of an image 0.333" in printed("-c", shuffle)
    assert "images/s" in printed("-c", times, str(run))
