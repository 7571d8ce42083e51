"""A run goes on, or another begins, with a set that has other identities: each kept one keeps its class row."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import fmean

import pytest
import tiny

from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.sets.identities import write_identities
from launch import train
from launch.config.loading import ConfigError, load_config
from partial_fc.checkpoint.layout import CheckpointFolder, latest_checkpoint

BEFORE = {f"person {number}": number for number in range(12)}
AFTER = {"a newcomer": 50} | {name: number for name, number in BEFORE.items() if name != "person 3"}
EPOCH_STEPS = 6  # of 16 images


def write_folders(folder: Path, people: dict[str, int]) -> Path:
    """A folder of images for each name."""
    for name, number in people.items():
        (folder / name).mkdir(parents=True)
        for index in range(tiny.IMAGES_PER_IDENTITY):
            (folder / name / f"{index}.png").write_bytes(tiny.encoded(number, index))
    return folder


def write_named_records(folder: Path, people: dict[str, int]) -> Path:
    """The same as records, with ``identities.tsv`` beside them."""
    folder.mkdir()
    with RecordWriter(folder / "train.rec") as writer:
        for label, number in enumerate(people.values()):
            for index in range(tiny.IMAGES_PER_IDENTITY):
                writer.append(label, tiny.encoded(number, index))
    write_identities(folder, [(label, name, tiny.IMAGES_PER_IDENTITY) for label, name in enumerate(people)])
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a run on twelve people, which has ended; the run lies beside it."""
    folder = tmp_path_factory.mktemp("before")
    content = tiny.tree(
        folder,
        folder / "run",
        data={"train": str(write_folders(folder / "data", BEFORE)), "evaluate": None},
        objective={"name": "cosine_softmax", "scale": 16},
        classifier={"learning_rate": 0.02, "momentum": 0.5},
        schedule={"epochs": 6},
        report={"every_steps": 1},
    )
    config = tiny.write_config(folder / "config.yaml", content)
    train.run(load_config(config))
    return config


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def classes(run: Path) -> tuple[int, int]:
    """How many the last checkpoint has, and of how many ranks."""
    manifest = CheckpointFolder(latest_checkpoint(run / "checkpoints")).manifest()
    return manifest.num_classes, manifest.world_size


def test_a_run_goes_on_with_one_identity_more_and_one_less(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, after = tmp_path / "run", write_folders(tmp_path / "after", AFTER)
    shutil.copytree(config.parent / "run", run, symlinks=True)
    learnt = losses(run)
    changed = [f"run_dir={run}", f"data.train={after}", "schedule.epochs=7"]
    with pytest.raises(ConfigError, match="of its identities, 11 kept, 1 new, 1 removed") as refused:
        train.run(load_config(config, changed))
    assert "the training set's fingerprint was" in str(refused.value)
    assert all(option in str(refused.value) for option in ("resume=changed", f"classifier.rows={run}"))

    capsys.readouterr()
    train.run(load_config(config, [*changed, "resume=changed"]))
    said = capsys.readouterr().out
    assert f"class rows of {run / 'checkpoints' / 'step-00000036'}: 11 kept, 1 new, 1 removed" in said
    assert "going on after step 36" in said
    went_on = losses(run)[len(learnt) :]
    assert len(went_on) == EPOCH_STEPS
    assert fmean(went_on) < 0.4 * fmean(learnt[:EPOCH_STEPS])
    assert classes(run) == (12, 1)

    train.run(load_config(config, changed))  # the last checkpoint is of this set
    assert len(losses(run)) == len(learnt) + EPOCH_STEPS


@pytest.mark.processes
def test_a_run_begins_with_the_rows_of_another_form_of_the_set_on_two_ranks(config: Path, tmp_path: Path) -> None:
    """Records in the reverse order of labels, and with one identity more."""
    before, fine = config.parent / "run", tmp_path / "fine"
    after = write_named_records(tmp_path / "after", dict(reversed((BEFORE | AFTER).items())))
    given = [f"data.train={after}", f"run_dir={fine}", f"backbone.weights={before}", f"classifier.rows={before}"]
    tiny.processes(2, trained, str(config), *given, "schedule.epochs=1")
    assert fmean(losses(fine)[:EPOCH_STEPS]) < 0.4 * fmean(losses(before)[:EPOCH_STEPS])
    assert classes(fine) == (13, 2)


def trained(config: str, *words: str) -> None:
    train.run(load_config(Path(config), words))
