"""Lists of pairs: which images a line names, what is refused, and the accuracy that an evaluation finds with one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from data_pipeline.pack import pack_synthetic
from launch import build, evaluate
from launch.config import load_config
from launch.pairs import identity_names, read_pairs

LABELS = np.array([1, 0, 0, 2, 1, 0])  # in any order, as a set may hold them
NAMES = {"Ann Lee": 0, "Bob": 1, "Cid": 2, "Nobody": 7}
LIST = "1\t2\nAnn Lee\t1\t3\nBob\t1\t2\n\nAnn Lee\t2\tBob\t2\nCid\t1\tAnn Lee\t1\n"


def listed(folder: Path, text: str) -> Path:
    path = folder / "pairs.txt"
    path.write_text(text)
    return path


def test_images_are_named_by_identity_and_place(tmp_path: Path) -> None:
    pairs = read_pairs(listed(tmp_path, LIST), LABELS, NAMES)
    assert pairs.pairs_P2.tolist() == [[1, 5], [0, 4], [2, 4], [3, 1]]
    assert pairs.folds == 1


def test_without_names_a_label_is_its_own_name(tmp_path: Path) -> None:
    pairs = read_pairs(listed(tmp_path, "1 1\n0 1 2\n0 3 2 1\n"), LABELS, {})
    assert pairs.pairs_P2.tolist() == [[1, 2], [5, 3]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "begins with ''"),
        ("Bob\t1\t2\n", r"begins with 'Bob\\t1\\t2': expected two numbers"),
        ("10\n", "expected two numbers"),
        ("1 0\n", "expected two numbers"),
        ("1 1\nDora 1 2\n", "line 2: no identity of the set is called 'Dora'"),
        ("1 1\nBob 1 2\nBob 3 Cid 1\n", "line 3: Bob has no image 3: expected 1 to 2"),
        ("1 1\nBob 0 1\n", "line 2: Bob has no image 0"),
        ("1 1\nBob one 1\n", "line 2: Bob has no image one"),
        ("1 1\nNobody 1 2\n", "line 2: Nobody has no image 1: expected 1 to 0"),
        ("1 1\nBob 1\n", "line 2: 2 fields: expected NAME I J or NAME I OTHER J"),
        ("2 1\nBob 1 2\nBob 1 Cid 1\n", "lists 2 pairs: its header promises 4, 2 folds of 1 pairs of one identity"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_pairs(listed(tmp_path, text), LABELS, NAMES)


def test_names_lie_beside_the_records(tmp_path: Path) -> None:
    assert identity_names(tmp_path) == identity_names(tmp_path / "train.rec") == {}
    pack_synthetic(tmp_path, identities=3, images=1, size=16, first_identity=40, workers=1)
    expected = {"synthetic-0-40": 0, "synthetic-0-41": 1, "synthetic-0-42": 2}
    assert identity_names(tmp_path) == identity_names(tmp_path / "train.rec") == expected
    (tmp_path / "identities.tsv").write_text("0 Ann\n")
    with pytest.raises(ValueError, match="expected the columns label and identity"):
        identity_names(tmp_path)


def test_an_evaluation_finds_the_accuracy_over_the_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten folds of an equal and an unequal pair; the equal one is of an image with itself, so that all are right."""
    pack_synthetic(tmp_path / "data", identities=4, images=3, size=tiny.SIZE, workers=1)
    content = tiny.tree(tmp_path / "data", tmp_path / "run", data={"evaluate": str(tmp_path / "data")})
    config = load_config(tiny.write_config(tmp_path / "config.yaml", content))
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text((tmp_path / "config.yaml").read_text())
    torch.save(build.backbone(config, None).state_dict(), tmp_path / "weights.pt")
    fold = "synthetic-0-1\t2\t2\nsynthetic-0-1\t2\tsynthetic-0-3\t1\n"
    words = ["--data", tmp_path / "data" / "train.rec", "--weights", tmp_path / "weights.pt"]
    words += ["--pairs", listed(tmp_path, "10\t1\n" + 10 * fold)]
    assert evaluate.main([str(tmp_path / "run"), *map(str, words)]) == 0
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())["kfold_accuracy"]
    assert found == {"mean": 1.0, "std": 0.0}
    assert "1.0000 ± 0.0000" in capsys.readouterr().out
    assert "Pair list, k-fold" in (tmp_path / "run" / "report.html").read_text()
    listed(tmp_path, "10\t1\n" + 10 * fold.replace("-3", "-4"))
    assert evaluate.main([str(tmp_path / "run"), *map(str, words)]) == 3
    assert "line 3: no identity of the set is called 'synthetic-0-4'" in capsys.readouterr().err
