"""Lists of pairs: which images a line names, what is refused, and the accuracy that an evaluation finds with one."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor

from data_pipeline.formats.verification_bin.source import BinSource
from data_pipeline.formats.verification_bin.writer import write_bin
from data_pipeline.packing.synthetic import pack_synthetic
from data_pipeline.synthetic.people import identity_image
from launch import evaluate
from launch.config.loading import load_config
from launch.evaluation.held_out import open_identities, rows_of_pairs
from launch.evaluation.lfw_pairs import PairList, read_pairs
from partial_fc.functional import verification

LABELS = np.array([1, 0, 0, 2, 1, 0])  # in any order, as a set may hold them
NAMES = {"Ann Lee": 0, "Bob": 1, "Cid": 2, "Nobody": 7}
LIST = "2\t1\nAnn Lee\t1\t3\nBob\t1\t2\n\nAnn Lee\t2\tBob\t2\nCid\t1\tAnn Lee\t1\n"


def listed(folder: Path, text: str) -> Path:
    path = folder / "pairs.txt"
    path.write_text(text)
    return path


def test_images_are_named_by_identity_and_place(tmp_path: Path) -> None:
    pairs = read_pairs(listed(tmp_path, LIST), LABELS, NAMES)
    assert pairs.pairs_P2.tolist() == [[1, 5], [0, 4], [2, 4], [3, 1]]
    assert pairs.fold_P.tolist() == [0, 0, 1, 1]
    marked = read_pairs(listed(tmp_path, f"\ufeff{LIST}"), LABELS, NAMES)  # as Notepad saves it
    assert marked.pairs_P2.tolist() == pairs.pairs_P2.tolist()


def test_without_names_a_label_is_its_own_name(tmp_path: Path) -> None:
    pairs = read_pairs(listed(tmp_path, "2 1\n" + 2 * "0 1 2\n0 3 2 1\n"), LABELS, {})
    assert pairs.pairs_P2.tolist() == 2 * [[1, 2], [5, 3]]
    ids = read_pairs(
        listed(tmp_path, "2 1\n" + 2 * "900000000 1 2\n900000000 3 900000002 1\n"), LABELS + 900_000_000, {}
    )
    assert ids.pairs_P2.tolist() == pairs.pairs_P2.tolist()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "begins with ''"),
        ("Bob\t1\t2\n", r"begins with 'Bob\\t1\\t2': expected two numbers"),
        ("10\n", "expected two numbers"),
        ("1 0\n", "expected two numbers"),
        ("2 1\nDora 1 2\n", "line 2: no identity of the set is called 'Dora'"),
        ("2 1\nBob 1 2\nBob 3 Cid 1\n", "line 3: Bob has no image 3: expected 1 to 2"),
        ("2 1\nBob 0 1\n", "line 2: Bob has no image 0"),
        ("2 1\nBob one 1\n", "line 2: Bob has no image one"),
        ("2 1\nNobody 1 2\n", "line 2: Nobody has no image 1: the set has none"),
        ("1 1\nBob 1 2\nBob 1 Cid 1\n", "has one fold: expected at least 2"),
        ("2 1\nBob 1\n", "line 2: 2 fields: expected NAME I J or NAME I OTHER J"),
        ("2 1\nBob 1 2\nBob 1 Cid 1\n", "lists 2 pairs: its header promises 4, 2 folds of 1 pairs of one identity"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_pairs(listed(tmp_path, text), LABELS, NAMES)


def test_the_numbers_in_file_names_are_meant_where_all_files_have_one(tmp_path: Path) -> None:
    """Ann Lee's second image is missing: her third is not taken for it."""
    for name in ("Ann Lee/Ann Lee_0001", "Ann Lee/Ann Lee_0003", "Bob/Bob_0001", "Bob/Bob_0002"):
        file = tmp_path / "set" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tiny.encoded(1, 0))
    section = load_config(tiny.write_config(tmp_path / "config.yaml", tiny.tree(tmp_path, tmp_path / "run"))).data
    text = "2 1\n" + 2 * "Ann Lee\t1\t3\nBob\t2\tAnn Lee\t3\n"
    found = open_identities(tmp_path / "set", section, listed(tmp_path, text)).pairs
    assert found is not None
    assert found.pairs_P2.tolist() == 2 * [[0, 1], [3, 1]]
    with pytest.raises(ValueError, match=r"line 2: Ann Lee has no image 2: the set has 1, 3"):
        open_identities(tmp_path / "set", section, listed(tmp_path, text.replace("\t1\t3", "\t1\t2")))
    (tmp_path / "set" / "Bob" / "other.png").write_bytes(tiny.encoded(1, 0))  # one file without a number: places then
    with pytest.raises(ValueError, match=r"line 2: Ann Lee has no image 3: expected 1 to 2"):
        open_identities(tmp_path / "set", section, listed(tmp_path, text))


def test_two_files_of_one_number_are_not_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Bob has more than one image 5"):
        read_pairs(listed(tmp_path, "2 1\nBob 5 6\n"), LABELS, NAMES, np.array([5, 1, 2, 1, 5, 3]))


LFW_PAIRS = Path(os.environ.get("LFW_PAIRS", "/nowhere/pairs.txt"))


@pytest.mark.skipif(not LFW_PAIRS.exists(), reason="LFW_PAIRS names no pairs.txt of LFW")
def test_the_list_of_lfw_is_read_whole() -> None:
    """Its 6,000 pairs in 10 folds, on a set of all images that it names."""
    named: dict[str, int] = {}
    for line in LFW_PAIRS.read_text().splitlines()[1:]:
        name, number, *rest = line.split("\t")
        other, last = rest if len(rest) == 2 else (name, rest[0])
        for each, at in ((name, number), (other, last)):
            named[each] = max(named.get(each, 0), int(at))
    labels = np.repeat(np.arange(len(named)), list(named.values()))
    pairs = read_pairs(LFW_PAIRS, labels, {name: label for label, name in enumerate(named)})
    same_P = torch.from_numpy(labels)[pairs.pairs_P2].diff(dim=1).flatten() == 0
    assert (len(pairs.pairs_P2), int(same_P.sum())) == (6000, 3000)
    for fold in range(10):
        of_fold = same_P[pairs.fold_P == fold]
        assert (len(of_fold), int(of_fold[:300].sum()), int(of_fold[300:].sum())) == (600, 300, 0)


def test_folds_keep_their_pairs_when_an_image_cannot_be_used() -> None:
    pairs = PairList(torch.tensor([[0, 1], [2, 3], [4, 5], [0, 5]]), torch.tensor([0, 0, 1, 1]))
    found, whole_P = rows_of_pairs(pairs, torch.tensor([0, 1, 3, 4, 5]), 6)
    assert whole_P.tolist() == [True, False, True, True]
    assert found.pairs_P2.tolist() == [[0, 1], [3, 4], [0, 4]]
    assert found.fold_P.tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="fold 2 has no pair left"):
        rows_of_pairs(pairs, torch.tensor([0, 1, 2, 3]), 6)


def write_run(folder: Path, data: dict[str, str]) -> None:
    """A run's configuration in ``folder/run`` and random weights beside it."""
    content = tiny.tree(folder / "data", folder / "run", data=data)
    config = load_config(tiny.write_config(folder / "config.yaml", content))
    (folder / "run" / "checkpoints").mkdir(parents=True)
    (folder / "run" / "config.yaml").write_text((folder / "config.yaml").read_text())
    torch.save(tiny.backbone(config).state_dict(), folder / "weights.pt")


def test_an_evaluation_finds_the_accuracy_over_the_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten folds of an equal and an unequal pair; the equal one is of an image with itself, so that all are right."""
    pack_synthetic(tmp_path / "data", identities=4, images=3, size=tiny.SIZE, workers=1)
    write_run(tmp_path, {"evaluate": str(tmp_path / "data")})
    fold = "synthetic-0-1\t2\t2\nsynthetic-0-1\t2\tsynthetic-0-3\t1\n"
    words = ["--data", tmp_path / "data" / "train.rec", "--weights", tmp_path / "weights.pt"]
    words += ["--pairs", listed(tmp_path, "10\t1\n" + 10 * fold)]
    assert evaluate.main([str(tmp_path / "run"), *map(str, words)]) == 0
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())["kfold_accuracy"]
    assert found == {"mean": 1.0, "std": 0.0, "standard_error": 0.0}
    assert "1.0000 ± 0.0000 (standard error 0.0000)" in capsys.readouterr().out
    assert "Pair list, k-fold" in (tmp_path / "run" / "report.html").read_text()
    listed(tmp_path, "10\t1\n" + 10 * fold.replace("-3", "-4"))
    assert evaluate.main([str(tmp_path / "run"), *map(str, words)]) == 3
    assert "line 3: no identity of the set is called 'synthetic-0-4'" in capsys.readouterr().err


PAIRS = 70


def write_pair_set(path: Path) -> list[Image.Image]:
    """Pairs of one person and of two by turns; the drawings, in the order of the file."""
    people = [(pair, pair if pair % 2 == 0 else pair + 1000) for pair in range(PAIRS)]
    drawings = [
        Image.fromarray(identity_image(person, index, size=tiny.SIZE))
        for pair in people
        for index, person in enumerate(pair)
    ]
    write_bin(path, (encoded(drawing) for drawing in drawings), [first == second for first, second in people])
    return drawings


def encoded(drawing: Image.Image) -> bytes:
    file = io.BytesIO()
    drawing.save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def pair_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose config names no held-out data, as a set of pairs brings its own, and such a set."""
    folder = tmp_path_factory.mktemp("pairs")
    torch.manual_seed(0)  # weights that tell some pairs apart, and not all
    write_run(folder, {})
    write_pair_set(folder / "tiny.bin")
    return folder


def pair_figures(folder: Path, out: Path, *words: str) -> dict[str, Any]:
    words = (str(folder / "run"), "--pairs", str(folder / "tiny.bin"), "--weights", str(folder / "weights.pt"), *words)
    assert evaluate.main([*words, "--out", str(out)]) == 0
    found: dict[str, Any] = json.loads((out / "evaluation-tiny.json").read_text())
    return found


def plain_embeddings(folder: Path, *, flip: bool) -> Tensor:
    """What arcface_torch makes of a set: pixels in -1..1, the sum of the two views, unit length; in a plain loop."""
    backbone = tiny.backbone(load_config(folder / "config.yaml"), folder / "weights.pt").eval()
    source = BinSource(folder / "tiny.bin")
    rows = []
    for sample in range(len(source)):
        with Image.open(io.BytesIO(source.read(sample).tobytes())) as image:
            pixels = torch.tensor(np.array(image.convert("RGB")), dtype=torch.float32).permute(2, 0, 1)[None]
        views = [pixels, pixels.flip(-1)] if flip else [pixels]
        with torch.no_grad():
            rows.append(torch.stack([backbone((view - 127.5) / 127.5) for view in views]).sum(0))
    return torch.nn.functional.normalize(torch.cat(rows), dim=1)


@pytest.mark.parametrize("flip", [False, True])
def test_a_set_of_pairs_has_the_accuracy_of_a_plain_loop_over_its_images(
    pair_run: Path, tmp_path: Path, flip: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    found = pair_figures(pair_run, tmp_path, *(["--flip"] if flip else []))
    unit_ND = plain_embeddings(pair_run, flip=flip).double()
    same_P = torch.arange(PAIRS) % 2 == 0
    fold_P = torch.arange(PAIRS) // (PAIRS // 10)
    accuracy = verification.kfold_accuracy((unit_ND[::2] * unit_ND[1::2]).sum(1), same_P, fold_P)
    mean, deviation, _ = accuracy
    assert found["kfold_accuracy"] == pytest.approx(accuracy._asdict())
    assert 0.5 < mean < 1, "accuracies that could be of anything would prove nothing"
    assert found["counts"] == {"images": 2 * PAIRS, "genuine_pairs": PAIRS // 2, "impostor_pairs": PAIRS // 2}
    assert list(found["tar_at_far"]) == ["1e-1"]
    assert found["flip"] is flip
    printed = capsys.readouterr().out
    assert f"{mean:.4f} ± {deviation:.4f}" in printed
    assert "TAR at FAR 1e-1" in printed


def test_a_set_of_pairs_and_other_data_or_a_set_that_is_none_are_refused(
    pair_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(pair_run / "run"), "--pairs", str(pair_run / "tiny.bin")]
    assert evaluate.main([*words, "--data", "held_out.rec"]) == 2
    assert "tiny.bin has images of its own; give one of the two" in capsys.readouterr().err
    (tmp_path / "harm.bin").write_bytes(b"cposix\nsystem\n(S'touch harmed'\ntR.")
    assert evaluate.main([*words[:2], str(tmp_path / "harm.bin")]) == 3
    assert "byte 14: it names 'posix.system', which is not data" in capsys.readouterr().err
