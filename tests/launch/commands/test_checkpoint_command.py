"""``partial-fc checkpoint``: the checkpoints of a run listed, shown and verified; damage is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from launch import cli
from partial_fc.checkpoint import layout
from partial_fc.checkpoint.layout import CheckpointFolder, Manifest
from partial_fc.checkpoint.writing import write_backbone, write_tensors

STEPS = (4, 8)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with two checkpoints, of 7 classes on 2 ranks."""
    folder = tmp_path / "run" / "checkpoints"
    for step in STEPS:
        partial = CheckpointFolder(layout.partial_folder(folder, step))
        partial.path.mkdir(parents=True)
        files = dict([write_backbone(partial.backbone, {"weight": torch.ones(3)})])
        for rank, rows in enumerate((4, 3)):
            files.update([write_tensors(partial.rank(rank, 2), {"row.weight": torch.randn(rows, 5)})])
        facts = {"config": {"seed": 20}}
        partial.write_manifest(Manifest(step, step, 7, 5, [(0, 4), (4, 7)], files, facts))
        layout.commit(folder, step)
    return tmp_path / "run"


def asked(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = cli.main(["checkpoint", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out + said.err


@pytest.mark.parametrize(("action", "state"), [("ls", "whole"), ("verify", "verified")])
def test_the_checkpoints_of_a_run_are_listed(
    run: Path, capsys: pytest.CaptureFixture[str], action: str, state: str
) -> None:
    code, said = asked(capsys, action, run)
    assert code == 0
    rows = [line for line in said.splitlines() if "step-" in line]
    assert [re.findall(r"step-\d+", row)[0] for row in rows] == ["step-00000004", "step-00000008"]
    assert all("7 x 5" in row and state in row for row in rows)
    code, said = asked(capsys, action, run / "checkpoints" / "latest")
    assert (code, said.count(state)) == (0, 1)


def test_a_checkpoint_says_what_it_holds(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = asked(capsys, "show", run)
    assert code == 0
    assert f"{run / 'checkpoints' / 'step-00000008'}\n" in said
    assert "after step 8 by 2 ranks: 7 classes of 5 dimensions" in said
    assert re.search("rank-00001-of-00002.safetensors.*4 to 6", said)
    assert '"seed": 20' in said


def test_a_flipped_byte_is_found_by_verify_and_a_cut_file_by_ls(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "checkpoints" / "step-00000004" / "rank-00001-of-00002.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert asked(capsys, "ls", run)[0] == 0
    code, said = asked(capsys, "verify", run)
    assert code == 3
    assert f"{file} is damaged: its CRC-32 is not the manifest's" in said
    assert (said.count(" verified "), said.count(" damaged ")) == (1, 1)
    file.write_bytes(content[:-1])
    code, said = asked(capsys, "ls", run)
    assert code == 3
    assert f"{file} has {len(content) - 1:,} bytes, and the manifest says {len(content):,}" in said


def test_a_manifest_of_another_version_is_listed_as_damaged(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = run / "checkpoints" / "step-00000008" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 99}))
    code, said = asked(capsys, "ls", run)
    assert code == 3
    assert "is a checkpoint of version 99: this program reads version 2" in said


@pytest.mark.parametrize("action", ["ls", "show", "verify"])
def test_a_folder_without_a_checkpoint_says_so_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    assert asked(capsys, action, tmp_path) == (
        3,
        f"partial-fc: {tmp_path} is no checkpoint: expected a folder with manifest.json, or a run's folder\n",
    )
    (tmp_path / "checkpoints").mkdir()
    code, said = asked(capsys, action, tmp_path)
    assert code == 3
    assert "holds no whole checkpoint" in said
    assert said.count("\n") == 1


def test_a_folder_of_arcface_torch_is_told_how_it_becomes_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.pt").touch()
    code, said = asked(capsys, "show", tmp_path)
    assert code == 3
    assert f"; partial-fc import arcface_torch {tmp_path} --out RUN makes a run of it\n" in said
