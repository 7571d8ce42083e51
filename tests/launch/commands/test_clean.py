"""``partial-fc clean``: planted faults are found, the lists are honoured by training, and a second look is quick."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from data_pipeline.checking.quarantine import quarantined
from data_pipeline.formats.by_path import source_at
from data_pipeline.formats.recordio.writer import RecordWriter
from launch import assembly, cli, train
from launch.config.loading import load_config
from partial_fc.backbones import backbone

IDENTITIES, IMAGES = 12, 8
TWIN, OTHER_TWIN = 3, 9  # one pattern under two labels
WRONG, CALLED, SHOWS = 17, 2, 6  # the sample that is called 2 and shows 6
COPIED = 30


def pattern(label: int, image: int) -> Image.Image:
    """A coarse pattern: most of it is the identity's, and some the image's."""
    of_identity, of_image = (
        np.random.default_rng(TWIN if label == OTHER_TWIN else label),
        np.random.default_rng([label, image]),
    )
    coarse = of_identity.integers(40, 216, (4, 4, 3)) + of_image.integers(-30, 31, (4, 4, 3))
    return Image.fromarray(coarse.astype(np.uint8).repeat(6, 0).repeat(6, 1))


def encoded(picture: Image.Image, form: str = "png") -> bytes:
    content = io.BytesIO()
    picture.save(content, form)
    return content.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with a fault of each kind, a test set with one of its pictures as JPEG, and a run trained on these."""
    folder = tmp_path_factory.mktemp("cleaned")
    for name in ("data", "test"):
        (folder / name).mkdir()
    with RecordWriter(folder / "data" / "train.rec") as writer:
        for sample in range(IDENTITIES * IMAGES):
            label, image = divmod(sample, IMAGES)
            writer.append(label, encoded(pattern(SHOWS if sample == WRONG else label, image)))
    with RecordWriter(folder / "test" / "train.rec") as writer:
        for label in range(100, 104):
            for image in range(2):
                writer.append(label - 100, encoded(pattern(label, image)))
        writer.append(4, encoded(pattern(*divmod(COPIED, IMAGES)), "jpeg"))
    trained(folder, "run")
    return folder


def trained(folder: Path, name: str, epochs: float = 5, **data: object) -> Path:
    """The config of a run that was trained on the set."""
    sets = {"train": str(folder / "data"), "evaluate": str(folder / "test"), **data}
    content = tiny.tree(folder, folder / name, data=sets, schedule={"epochs": epochs})
    file = tiny.write_config(folder / f"{name}.yaml", content)
    assert train.main([str(file)]) == 0
    return file


def clean(folder: Path, out: Path, *words: object, model: str = "run") -> int:
    given = [folder / "data", "--model", folder / model, "--out", out, "--input-size", tiny.SIZE, *words]
    return cli.main(["clean", *map(str, given)])


@pytest.fixture(scope="module")
def lists(folder: Path) -> Path:
    assert clean(folder, folder / "lists", "--test", folder / "test") == 0
    return folder / "lists"


def test_each_planted_fault_is_listed_and_nothing_else(folder: Path, lists: Path) -> None:
    found = {line.sample: line.reason for line in quarantined(lists / "quarantine.tsv", source_at(folder / "data"))}
    assert sorted(found) == sorted({WRONG, COPIED})
    assert re.fullmatch(rf"label: called {CALLED} \(cosine .+\), nearer to {SHOWS} \(.+\)", found[WRONG])
    assert found[COPIED].startswith("test picture: the same as ")
    assert found[COPIED].endswith("key 9")
    lines = (lists / "merge.tsv").read_text().splitlines()[2:-1]
    assert [line.split("\t")[:2] for line in lines] == [[str(OTHER_TWIN), str(TWIN)]]
    page = (lists / "clean.html").read_text()
    assert page.count('<figure class="strip">') == 3
    assert f"called label {CALLED}" in page


def test_training_honours_both_lists(folder: Path, lists: Path) -> None:
    honours = {"quarantine": str(lists / "quarantine.tsv"), "merge": str(lists / "merge.tsv")}
    config = load_config(trained(folder, "again", 0.5, **honours))
    source = tiny.training_data(config)
    assert source.num_classes == IDENTITIES - 1
    assert (np.bincount(source.labels) == [2 * IMAGES if label == TWIN else IMAGES for label in range(11)]).all()
    assert assembly.quarantined(config.data, source).tolist() == [WRONG, COPIED]


def test_a_list_of_another_set_is_refused(folder: Path, lists: Path, tmp_path: Path) -> None:
    content = tiny.tree(
        folder, tmp_path / "run", data={"train": str(folder / "test"), "merge": str(lists / "merge.tsv")}
    )
    config = load_config(tiny.write_config(tmp_path / "config.yaml", content))
    with pytest.raises(ValueError, match="made for another set"):
        tiny.training_data(config)


def test_a_second_look_takes_the_embeddings_that_are_there(
    folder: Path, lists: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = (lists / "train.npy").stat().st_mtime_ns
    assert clean(folder, lists, "--test", "--near", "1.1") == 0
    said = capsys.readouterr().out
    assert (lists / "train.npy").stat().st_mtime_ns == made
    assert "0 pairs of identities have centres with a cosine of 1.100" in said
    assert "0 images are pictures of a test set, of 0" in said
    torch.save(backbone("r18", width=8, embedding_dim=16, input_size=tiny.SIZE).state_dict(), folder / "other.pt")
    assert clean(folder, lists, model="other.pt") == 3
    assert "holds embeddings of another network or set" in capsys.readouterr().err


def test_the_labels_are_those_that_the_run_was_trained_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = trained(folder, "noisy", label_noise=0.1)
    capsys.readouterr()
    assert clean(folder, tmp_path / "out", model="noisy") == 0
    said = capsys.readouterr().out
    noisy = tiny.training_data(load_config(file)).labels != source_at(folder / "data").labels
    listed = {line.sample for line in quarantined(tmp_path / "out" / "quarantine.tsv", source_at(folder / "data"))}
    wrong = listed - {COPIED}
    hits = sum(noisy[sample] for sample in wrong)
    assert f"against the {noisy.sum()} wrong labels" in said
    assert f"precision {hits / len(wrong):.3f}, recall {hits / noisy.sum():.3f}" in said
    assert hits / noisy.sum() > 0.5


def test_a_set_is_not_written_into(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert clean(folder, folder / "data" / "lists") == 2
    assert "lies in the set" in capsys.readouterr().err
