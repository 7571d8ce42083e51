"""What is said of people that were, or were not, trained on; and a set that stands twice in a list."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from data_pipeline.formats.by_path import source_at
from data_pipeline.sets.identities import write_identities
from launch import assembly, evaluate, train
from launch.config.loading import ConfigError, load_config
from launch.evaluation.seen import NOT_SEEN, SEEN, UNKNOWN, seen_in_training


def named_set(folder: Path, people: range, names: list[str] | None = None) -> Path:
    tiny.write_records(folder / "train.rec", people)
    if names is not None:
        write_identities(folder, [(label, name, tiny.IMAGES_PER_IDENTITY) for label, name in enumerate(names)])
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    named_set(folder / "train", range(3), ["Ann", "Bob", "Eve"])
    named_set(folder / "more", range(3, 5), ["Ida", "Max"])
    named_set(folder / "others", range(5, 7), ["Lea", "Tom"])
    named_set(folder / "overlapping", range(2, 4), ["Eve", "Ida"])
    named_set(folder / "nameless", range(7, 9))
    named_set(folder / "numbered", range(9, 11), ["7", "8"])
    (folder / "link").symlink_to(folder / "train")
    (folder / "copy").mkdir()
    (folder / "copy" / "other.rec").write_bytes((folder / "train" / "train.rec").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("trained", "held_out", "expected"),
    [
        (["train"], "others", NOT_SEEN),
        (["train", "more"], "others", NOT_SEEN),
        (["train"], "train", SEEN),
        (["train"], "link", SEEN),
        (["train"], "train/train.rec", SEEN),
        (["train"], "copy", SEEN),
        (["more", "train"], "copy", SEEN),
        (["train"], "overlapping", UNKNOWN),
        (["train"], "nameless", UNKNOWN),
        (["train", "nameless"], "others", UNKNOWN),
        (["numbered"], "others", UNKNOWN),
        (["train"], "numbered", UNKNOWN),
    ],
)
def test_no_more_is_said_than_the_sets_tell(sets: Path, trained: list[str], held_out: str, expected: str) -> None:
    paths = [sets / name for name in trained]
    assert seen_in_training(sets / held_out, source_at(sets / held_out), paths, source_at(paths)) == expected


@pytest.mark.parametrize(("held_out", "heading"), [("others", NOT_SEEN), ("copy", SEEN), ("nameless", UNKNOWN)])
def test_the_table_and_the_page_claim_what_is_known(
    sets: Path, tmp_path: Path, held_out: str, heading: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"train": str(sets / "train"), "evaluate": str(sets / held_out), "least_images_per_identity": 2}
    tree = tiny.tree(sets, tmp_path / "run", data=data, schedule={"batch_size": 8, "epochs": 0.3})
    assert train.main([str(tiny.write_config(tmp_path / "config.yaml", tree))]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "run" / "report.html").read_text()
    for said in (NOT_SEEN, SEEN):
        assert (said in printed, said in page) == ((said == heading,) * 2)
    assert ("is trained on" in printed) == (heading == SEEN)
    assert evaluate.main([str(tmp_path / "run"), "--data", str(sets / "link")]) == 0
    assert SEEN in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("join", ["offset", "merge"])
@pytest.mark.parametrize(
    ("twice", "said"),
    [
        (["train", "train"], "train.rec is named twice"),
        (["train", "more", "link"], "train.rec is named twice, first as"),
        (["more", "train", "copy"], "data.train: .*copy has the images of .*train: leave one of them out"),
    ],
)
def test_a_set_that_stands_twice_is_refused(sets: Path, tmp_path: Path, twice: list[str], said: str, join: str) -> None:
    train_sets = [str(sets / name) for name in twice]
    tree = tiny.tree(sets, tmp_path / "run", data={"train": train_sets, "join": join})
    config = load_config(tiny.write_config(tmp_path / "config.yaml", tree))
    with pytest.raises((ConfigError, ValueError), match=said):
        assembly.open_training_data(config.data, 0)
