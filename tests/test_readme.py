"""What the README shows runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
UNTRAINED_LOSS = 6.9  # ln(1000)


def printed_losses(command: list[str], folder: Path) -> list[str]:
    found = re.search(r"<!-- script -->\n```python\n(.*?)```\n<!-- /script -->", README, re.DOTALL)
    assert found is not None
    (folder / "script.py").write_text(found[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "script.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return re.findall(r"loss (\d+\.\d+), scale", done.stdout)  # ranks may write into one line


@pytest.mark.processes
@pytest.mark.parametrize("size", [1, 2])
def test_the_script_of_the_readme_trains_on_one_process_and_on_two(size: int, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"] if size > 1 else []
    losses = printed_losses([sys.executable, *launcher], tmp_path)
    assert len(losses) == size
    assert len(set(losses)) == 1
    assert float(losses[0]) < 0.8 * UNTRAINED_LOSS


def test_every_source_file_stands_in_the_tree_of_the_readme() -> None:
    tree = README.split("## The house")[1]
    sources = [path for top in ("partial_fc", "data_pipeline", "launch") for path in (ROOT / top).rglob("*.py")]
    missing = [path.name for path in sources if path.name != "__init__.py" and path.name not in tree]
    assert not missing
