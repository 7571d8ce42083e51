"""Several machines by one command on each, and the files for Slurm. Slurm itself: ``make cluster-test``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import tiny
from ports import free_port

from launch import cli
from launch.meeting import Meeting

PATIENCE_SECONDS = 300.0
ROOT = Path(__file__).parents[3]
SCRIPTS = [
    "launch/cluster/slurm.sbatch",
    "tests/cluster/hosts.bash",
    "tests/cluster/installing.bash",
    *(f"tests/cluster/{file.name}" for file in (ROOT / "tests/cluster").glob("*.sh")),
]


@pytest.mark.processes
def test_the_same_command_on_two_nodes_trains_one_run(tmp_path: Path) -> None:
    config = tiny.write_config(tmp_path / "c.yaml", tiny.tree(tiny.write_data(tmp_path / "data"), tmp_path / "run"))
    meet = f"127.0.0.1:{free_port()}"
    words = ("train", config, "--nproc", 1, "--nodes", 2, "--meet", meet, "--address", "127.0.0.1")
    pipe, environment = subprocess.PIPE, tiny.environment()
    nodes = [subprocess.Popen(tiny.command(*words), env=environment, stdout=pipe, stderr=pipe, text=True) for _ in "ab"]
    said = [node.communicate(timeout=PATIENCE_SECONDS) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert sum("6 steps of 16 on 2 x cpu" in out for out, _ in said) == 1
    assert (tmp_path / "run" / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nodes", "2"], "--nodes says how many machines there are, --meet where they meet: give both"),
        (["--meet", "a:1"], "give both, or neither"),
        (["--address", "10.0.0.1"], "--address is how the other machines reach this one: give --nodes and --meet"),
        (["--nodes", "4:2", "--meet", "a:1"], "'4:2': expected a number of machines, such as 4, or a range"),
        (["--nodes", "0", "--meet", "a:1"], "'0': expected a number of machines"),
    ],
)
def test_half_a_meeting_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main(["train", str(ROOT / "configs" / "small.yaml"), *words])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    assert said in capsys.readouterr().err


def test_machines_that_do_not_meet_are_told_what_to_look_at() -> None:
    said = Meeting("4", "n0:29400").failed(TimeoutError("too late"))
    assert "did not meet the others at n0:29400 (too late): give the same --nodes 4 and --meet n0:29400 on each" in said


@pytest.mark.parametrize("script", SCRIPTS)
def test_shell_scripts_have_no_known_faults(script: str) -> None:
    if not (shellcheck := shutil.which("shellcheck")):
        pytest.skip("needs shellcheck")
    done = subprocess.run([shellcheck, str(ROOT / script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_make_runs_every_script_of_this_kind() -> None:
    recipe = (ROOT / "Makefile").read_text().split("cluster-test:")[1].split("\n\n")[0]
    assert {line.strip() for line in recipe.splitlines()[1:]} == {
        script for script in SCRIPTS if script.endswith(".sh")
    }
