"""What a held-out set shares with the training set: names, and images byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from simulation import on_ranks

from data_pipeline.formats.by_path import source_at
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.verification_bin.writer import write_bin
from data_pipeline.sets.identities import write_identities
from launch import evaluate, train
from launch.config.loading import load_config
from launch.evaluation.overlap import shared_images, shared_names
from partial_fc import World

EACH = tiny.IMAGES_PER_IDENTITY


def named(folder: Path, people: range, names: list[str]) -> Path:
    tiny.write_records(folder / "train.rec", people)
    write_identities(folder, [(label, name, EACH) for label, name in enumerate(names)])
    return folder


@pytest.mark.parametrize("ranks", [1, 3])
def test_the_images_that_two_sets_share_are_found_on_every_rank(tmp_path: Path, ranks: int) -> None:
    trained = RecordSource(tiny.write_records(tmp_path / "trained.rec", range(5)))
    held_out = RecordSource(tiny.write_records(tmp_path / "held.rec", range(3, 8), damaged=(1,)))
    images = {trained.read(sample).tobytes() for sample in range(len(trained))}
    expected = [sample for sample in range(len(held_out)) if held_out.read(sample).tobytes() in images]
    assert expected == [sample for sample in range(2 * EACH) if sample != 1]
    cpu = torch.device("cpu")
    assert on_ranks(ranks, lambda world: shared_images(held_out, trained, world, cpu)) == [expected] * ranks


def test_names_are_compared_and_numbers_are_not(tmp_path: Path) -> None:
    trained = named(tmp_path / "trained", range(3), ["Ann", "Bob", "7"])
    held_out = named(tmp_path / "held", range(3, 6), ["Eve", "Bob", "Ann"])
    numbers = named(tmp_path / "numbers", range(2), ["7", "8"])
    assert shared_names(held_out, source_at(held_out), [trained], source_at(trained)) == ["Ann", "Bob"]
    assert shared_names(numbers, source_at(numbers), [trained], source_at(trained)) == []


def test_a_training_warns_by_name_and_an_evaluation_says_all_that_is_shared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = named(tmp_path / "train", range(6), ["Ann", "Bob", "Eve", "Ida", "Max", "Lea"])
    held_out = named(tmp_path / "held", range(5, 9), ["Lea", "Tom", "Zoe", "Ann"])
    tree = tiny.tree(tmp_path, tmp_path / "run", data={"train": str(trained), "evaluate": str(held_out)})
    tree["schedule"]["epochs"] = 0.4
    config = tiny.write_config(tmp_path / "config.yaml", tree)
    assert train.main([str(config)]) == 0
    by_name = "2 identities have the name of one that is trained on (Ann, Lea)"
    assert f"data.evaluate: {by_name}" in capsys.readouterr().out
    assert evaluate.main([str(tmp_path / "run"), "--overlap"]) == 0
    printed = capsys.readouterr().out
    assert by_name in printed
    assert f"{EACH} images are the same, byte for byte, as one that is trained on" in printed
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["shared_with_training"] == {"identities": ["Ann", "Lea"], "images": EACH}

    images = [tiny.encoded(identity, index) for identity in range(4, 14) for index in range(2)]
    write_bin(tmp_path / "held" / "some.bin", images, [pair % 2 == 0 for pair in range(10)])  # beside identities.tsv
    assert evaluate.main([str(tmp_path / "run"), "--overlap", "--pairs", str(tmp_path / "held" / "some.bin")]) == 0
    found = json.loads((tmp_path / "run" / "evaluation-some.json").read_text())
    assert found["shared_with_training"] == {"identities": [], "images": 4}
    assert load_config(config).data.evaluate == held_out


def test_images_that_cannot_be_read_are_not_the_same(tmp_path: Path) -> None:
    for name in ("held", "trained"):
        (tmp_path / name / "ann").mkdir(parents=True)
        (tmp_path / name / "ann" / "0.png").write_bytes(b"")
        (tmp_path / name / "ann" / "1.png").write_bytes(tiny.encoded(1, 1))
    held_out, trained = (source_at(tmp_path / name) for name in ("held", "trained"))
    assert shared_images(held_out, trained, World(), torch.device("cpu")) == [1]
