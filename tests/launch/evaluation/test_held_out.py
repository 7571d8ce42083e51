"""A held-out set is looked at before the first step; its damaged images are left out, counted and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from data_pipeline.checking.quarantine import QuarantineWriter
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.verification_bin.writer import write_bin
from launch import evaluate, train
from launch.config.loading import load_config
from launch.evaluation.embeddings import embeddings
from launch.evaluation.held_out import HeldOut, open_pair_set, refuse_without_pairs
from partial_fc import World

DAMAGED = (3, 33)  # of the 80 held-out images
PNG_END = 12  # bytes of the last chunk: without them only the outline shows the damage


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_data(tmp_path_factory.mktemp("data"))
    tiny.write_records(folder / "damaged" / "train.rec", tiny.HELD_OUT, damaged=DAMAGED)
    tiny.write_records(folder / "one" / "train.rec", range(1))
    return folder


@pytest.fixture(scope="module")
def run_dir(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run measured on a damaged set."""
    folder = tmp_path_factory.mktemp("run")
    tree = tiny.tree(data, folder / "run", data={"evaluate": str(data / "damaged")}, schedule={"epochs": 0.2})
    train.run(load_config(tiny.write_config(folder / "config.yaml", tree)))
    return folder / "run"


def figures(folder: Path, name: str = "evaluation.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found


def listed(path: Path, records: Path, samples: tuple[int, ...]) -> Path:
    with QuarantineWriter(path, RecordSource(records / "train.rec")) as quarantine:
        for sample in samples:
            quarantine.append(sample, "known")
    return path


def test_damaged_held_out_images_are_named_before_the_first_step_and_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tiny.tree(data, tmp_path / "run", data={"evaluate": str(data / "damaged")}, schedule={"epochs": 0.2})
    assert train.main([str(tiny.write_config(tmp_path / "config.yaml", tree))]) == 0
    said, steps = capsys.readouterr().out.split("step 1", 1)[0], figures(tmp_path / "run")
    assert "left out of the 80 held-out images: 2 that cannot be used (" in said
    assert all(f"damaged/train.rec key {sample + 1}: truncated" in said for sample in DAMAGED)
    assert steps["counts"]["images"] == 78


def test_the_other_images_keep_their_embeddings_bit_for_bit(data: Path, run_dir: Path) -> None:
    config, none = load_config(run_dir / "config.yaml"), np.empty(0, np.int64)
    backbone = tiny.backbone(config)
    whole, damaged, left_out = (
        embeddings(config, backbone, HeldOut(RecordSource(data / name / "train.rec"), bad), World(), CPU, flip=True)
        for name, bad in (("heldout", none), ("damaged", none), ("heldout", np.array(DAMAGED)))
    )
    kept = np.delete(np.arange(80), DAMAGED)
    for found in (damaged, left_out):
        assert found.samples_N.tolist() == kept.tolist()
        assert torch.equal(found.unit_ND, whole.unit_ND[kept])
        assert torch.equal(found.labels_N, whole.labels_N[kept])


CPU = torch.device("cpu")


def test_a_quarantine_list_serves_the_set_it_was_made_for(
    data: Path, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_held_out = listed(tmp_path / "held.tsv", data / "damaged", DAMAGED)
    of_training = listed(tmp_path / "train.tsv", data / "train", (5,))
    of_neither = listed(tmp_path / "one.tsv", data / "one", (0,))
    tree = tiny.tree(data, tmp_path / "run", data={"evaluate": str(data / "damaged")}, schedule={"epochs": 0.2})
    config = str(tiny.write_config(tmp_path / "config.yaml", tree))
    for lists in ([of_held_out], [of_training, of_held_out]):
        words = f"data.quarantine=[{', '.join(map(str, lists))}]"
        assert train.main([config, "--set", words]) == 0
        assert "left out of the 80 held-out images: 2 that data.quarantine lists\n" in capsys.readouterr().out
        assert figures(tmp_path / "run")["counts"]["images"] == 78
    assert train.main([config, "--set", f"data.quarantine={of_training}"]) == 0
    assert train.main([config, "--set", f"data.quarantine=[{of_held_out}, {of_neither}]"]) == 3
    assert "one.tsv was made for another set than data.train and data.evaluate" in capsys.readouterr().err


@pytest.mark.processes
def test_any_number_of_ranks_leaves_out_the_same_images(run_dir: Path, tmp_path: Path) -> None:
    tiny.processes(2, evaluated_in_small_batches, str(run_dir), str(tmp_path / "two"))
    evaluated_in_small_batches(str(run_dir), str(tmp_path / "one"))
    assert figures(tmp_path / "one") == figures(tmp_path / "two")
    assert figures(tmp_path / "one")["counts"]["images"] == 78


def evaluated_in_small_batches(run_dir: str, out: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("launch.evaluation.embeddings.EMBED_BATCH", 40)
        assert evaluate.main([run_dir, "--out", out]) == 0


def test_pairs_of_a_damaged_image_are_left_out(
    data: Path, run_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [f"{label}\t1\t{image}" for label in range(5) for image in (2, 4)]  # sample 3 is label 0's fourth
    lines += [f"{label}\t2\t{label + 1}\t3" for label in range(5) for _ in range(2)]
    (tmp_path / "pairs.txt").write_text("\n".join(["2 5", *lines[:5], *lines[10:15], *lines[5:10], *lines[15:]]))
    assert evaluate.main([str(run_dir), "--pairs", str(tmp_path / "pairs.txt"), "--out", str(tmp_path)]) == 0
    assert 0 < figures(tmp_path)["kfold_accuracy"]["mean"] <= 1

    images = [tiny.encoded(identity, index) for identity in range(20) for index in range(2)]
    images[6] = images[6][:-PNG_END]
    write_bin(tmp_path / "some.bin", images, [pair % 2 == 0 for pair in range(20)])
    assert evaluate.main([str(run_dir), "--pairs", str(tmp_path / "some.bin"), "--out", str(tmp_path)]) == 0
    counts = figures(tmp_path, "evaluation-some.json")["counts"]
    assert (counts["images"], counts["genuine_pairs"], counts["impostor_pairs"]) == (39, 10, 9)
    assert "some.bin image 6 (pair 3): truncated" in caplog.text


@pytest.mark.parametrize("name", ["one", "single"])
def test_a_set_that_nothing_can_be_measured_on_is_refused_before_the_first_step(
    data: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for identity in range(3):
        (tmp_path / "single" / str(identity)).mkdir(parents=True)
        (tmp_path / "single" / str(identity) / "0.png").write_bytes(tiny.encoded(identity, 0))
    held_out = data / "one" if name == "one" else tmp_path / "single"
    tree = tiny.tree(data, tmp_path / "run", data={"evaluate": str(held_out)})
    assert train.main([str(tiny.write_config(tmp_path / "config.yaml", tree))]) == 3
    printed = capsys.readouterr()
    assert f"{held_out} cannot be measured on: it has" in printed.err
    assert "step" not in printed.out
    assert not (tmp_path / "run").exists()


def test_damage_that_leaves_no_pair_is_refused_before_the_first_step(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = range(2 * tiny.IMAGES_PER_IDENTITY)
    tiny.write_records(tmp_path / "few" / "train.rec", range(2), damaged=[*images[1:8], *images[9:]])
    tree = tiny.tree(data, tmp_path / "run", data={"evaluate": str(tmp_path / "few")})
    assert train.main([str(tiny.write_config(tmp_path / "config.yaml", tree))]) == 3
    assert "it has 2 usable images of 2 identities, and needs" in capsys.readouterr().err


def test_labels_tell_whether_there_are_pairs_of_both_kinds() -> None:
    refuse_without_pairs(Path("x"), np.array([0, 0, 7]))
    for labels in ([], [3], [3, 3], [1, 2, 3]):
        with pytest.raises(ValueError, match="cannot be measured on"):
            refuse_without_pairs(Path("x"), np.array(labels, np.int64))


def test_pairs_of_one_kind_alone_are_refused_before_any_is_embedded(data: Path, tmp_path: Path) -> None:
    images = [tiny.encoded(identity, 0) for identity in range(24)]
    section = load_config(tiny.write_config(tmp_path / "config.yaml", tiny.tree(data, tmp_path / "run"))).data
    for name, flags in {"genuine": [True] * 12, "impostor": [False] * 12, "few": [True, False] * 4}.items():
        write_bin(tmp_path / f"{name}.bin", images[: 2 * len(flags)], flags)
        with pytest.raises(ValueError, match=rf"{name}\.bin has .* pairs of one identity and .* of two"):
            open_pair_set(tmp_path / f"{name}.bin", section)
