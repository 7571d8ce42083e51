"""Held-out people searched among distractors, from files to figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

from data_pipeline.formats.recordio.source import RecordSource
from launch import evaluate
from launch.config.loading import load_config
from launch.evaluation.embeddings import embeddings
from launch.evaluation.held_out import HeldOut
from partial_fc import World
from partial_fc.protocols.distractors import among_distractors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with random weights, its held-out people, and others."""
    folder = tiny.write_data(tmp_path_factory.mktemp("distractors"))
    torch.manual_seed(1)
    config = load_config(tiny.write_config(folder / "config.yaml", tiny.tree(folder, folder / "run")))
    (folder / "run" / "checkpoints").mkdir(parents=True)
    (folder / "run" / "config.yaml").write_text((folder / "config.yaml").read_text())
    torch.save(tiny.backbone(config).state_dict(), folder / "weights.pt")
    tiny.write_records(folder / "crowd" / "train.rec", range(500, 540), damaged=(3,))
    return folder


def small_batches(*words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("launch.evaluation.embeddings.EMBED_BATCH", 40)
        assert evaluate.main([*words]) == 0


@pytest.mark.processes
def test_held_out_people_are_searched_among_distractors_on_any_number_of_ranks(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(folder / "run"), "--distractors", str(folder / "crowd"), "--weights", str(folder / "weights.pt")]
    small_batches(*words, "--out", str(tmp_path / "one"))
    printed = " ".join(capsys.readouterr().out.split())
    assert "80 probes among 319 distractors" in printed
    found = json.loads((tmp_path / "one" / "evaluation-among-crowd.json").read_text())
    assert (tmp_path / "one" / "evaluation-among-crowd.html").read_text().count("<svg") == 2
    config = load_config(folder / "config.yaml")
    backbone = tiny.backbone(config, folder / "weights.pt")
    cpu = torch.device("cpu")
    sets = [RecordSource(folder / name / "train.rec") for name in ("heldout", "crowd")]
    none = torch.empty(0, dtype=torch.int64).numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("launch.evaluation.embeddings.EMBED_BATCH", 40)
        probes, crowd = (embeddings(config, backbone, HeldOut(each, none), World(), cpu, flip=False) for each in sets)
    expected = among_distractors(probes.unit_ND, probes.labels_N, crowd.unit_ND, World()).to_json()
    assert {"flip": False, **json.loads(json.dumps(expected))} == found
    assert 0 < found["rank"]["1"] < 1
    tiny.processes(2, small_batches, *words, "--out", str(tmp_path / "two"))
    assert json.loads((tmp_path / "two" / "evaluation-among-crowd.json").read_text()) == found


def test_a_picture_that_is_in_both_sets_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(folder / "run"), "--distractors", str(folder / "heldout"), "--weights", str(folder / "weights.pt")]
    small_batches(*words, "--out", str(tmp_path))
    found = json.loads((tmp_path / "evaluation-among-heldout.json").read_text())
    same = found["counts"]["impostor_pairs_of_cosine_1"]
    assert same >= 80
    assert found["rank"]["1"] == 0.0
    assert f"{same} of the latter have a cosine of 1: they are the same picture in both sets" in capsys.readouterr().out


def test_distractors_and_pairs_exclude_each_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(folder / "run"), "--distractors", str(folder / "crowd"), "--pairs", "pairs.txt"]
    assert evaluate.main(words) == 2
    assert "--distractors and --pairs exclude each other" in capsys.readouterr().err
