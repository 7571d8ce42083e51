"""Sets as a configuration names them: columns of tables, and sets that have pairs and no identities."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from tiny import Tree

from data_pipeline.formats.verification_bin.writer import write_bin
from launch import assembly, cli
from launch.config.loading import ConfigError, load_config
from launch.config.run import Config


def config_of(tmp_path: Path, data: Tree) -> Config:
    content: Tree = {"data": {name: str(value) for name, value in data.items()}}
    return load_config(tiny.write_config(tmp_path / "config.yaml", content))


def table(path: Path, **columns: list[Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A table in which neither column can be told from its name."""
    return table(
        tmp_path / "faces.parquet",
        crop=[b"c0", b"c1", b"c2"],
        whole=[b"w0", b"w1", b"w2"],
        who=[0, 2, 2],
        age=[3, 4, 5],
    )


def test_a_config_names_the_columns_of_its_tables(tmp_path: Path, faces: Path) -> None:
    config = config_of(tmp_path, {"train": faces, "evaluate": faces, "image_column": "crop", "label_column": "who"})
    for source, labels in (
        (tiny.training_data(config), [0, 1, 1]),  # numbered anew
        (assembly.open_held_out(faces, config.data), [0, 2, 2]),
    ):
        assert source.labels.tolist() == labels
        assert source.read(1).tobytes() == b"c1"


@pytest.mark.parametrize("settings", [{}, {"least_images_per_identity": 2}, {"label_noise": 0.5}])
def test_labels_that_are_ids_are_numbered_anew_and_it_is_said(tmp_path: Path, settings: Tree) -> None:
    ids = table(tmp_path / "ids.parquet", image=[b"x"] * 4, label=[900_000_007, 900_000_000] * 2)
    source = tiny.training_data(config_of(tmp_path, {"train": ids, **settings}))
    assert source.num_classes == 2
    assert set(source.labels.tolist()) == {0, 1}
    assert assembly.numbering(source) == (
        " (numbered anew: 900,000,006 of the labels 0 to 900,000,007 have no image (the first: 0, 1, 2, 3, 4); the "
        f"largest is that of {ids} row 0)"
    )
    with pytest.raises(ConfigError, match=r"num_classes is 900000008, but .*ids\.parquet has 2 \(numbered anew"):
        tiny.training_data(config_of(tmp_path, {"train": ids, "num_classes": 900_000_008, **settings}))


def test_a_set_of_one_identity_is_refused(tmp_path: Path) -> None:
    faces = table(tmp_path / "faces.parquet", image=[b"x"] * 3, label=[3, 5, 5])
    assert tiny.training_data(config_of(tmp_path, {"train": faces})).num_classes == 2
    said = (
        r"faces\.parquet has images of one identity with 2 or more \(data\.least_images_per_identity\): training tells"
    )
    with pytest.raises(ValueError, match=said):
        tiny.training_data(config_of(tmp_path, {"train": faces, "least_images_per_identity": 2}))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, "data.image_column is to be named: FACES has the columns crop (binary), whole (binary), who (int64)"),
        ({"image_column": "crop"}, "data.label_column is to be named: "),
        ({"image_column": "crops", "label_column": "who"}, "data.image_column 'crops' is not there: "),
        ({"image_column": "crops", "label_column": "who"}, "and the nearest is 'crop'"),
        ({"image_column": "crop", "label_column": "whom"}, "data.label_column 'whom' is not there: "),
        ({"image_column": "crop", "label_column": "whole"}, "data.label_column 'whole' cannot hold them: "),
    ],
)
def test_a_column_that_is_not_there_is_refused_with_the_nearest(
    tmp_path: Path, faces: Path, columns: Tree, said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said.replace("FACES", str(faces)))):
        tiny.training_data(config_of(tmp_path, {"train": faces, **columns}))


def test_columns_are_refused_where_no_set_has_any_and_passed_over_where_another_has(
    tmp_path: Path, faces: Path
) -> None:
    records = tiny.write_records(tmp_path / "train.rec", range(2))
    columns = {"image_column": "crop", "label_column": "who"}
    with pytest.raises(
        ConfigError, match=r"data\.image_column 'crop' and label_column 'who': .*train\.rec is no table"
    ):
        tiny.training_data(config_of(tmp_path, {"train": records, **columns}))
    config = config_of(tmp_path, {"train": records, "evaluate": faces, **columns})
    assert tiny.training_data(config).num_classes == 2
    assert assembly.open_held_out(faces, config.data).num_classes == 3


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    images = [tiny.encoded(identity, index) for identity, index in ((0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (1, 0))]
    write_bin(tmp_path / "pairs.bin", images, [True, False, True])
    return tmp_path / "pairs.bin"


def test_a_verification_set_is_no_set_to_train_on_or_to_count_identities_in(tmp_path: Path, pairs: Path) -> None:
    said = r"pairs\.bin is a verification set: .* partial-fc evaluate RUN --pairs"
    with pytest.raises(ConfigError, match=said):
        tiny.training_data(config_of(tmp_path, {"train": pairs}))
    with pytest.raises(ConfigError, match=said):
        assembly.open_held_out(pairs)
    records = tiny.write_records(tmp_path / "train.rec", range(2))
    config = load_config(
        tiny.write_config(tmp_path / "both.yaml", {"data": {"train": [str(records), str(pairs)], "join": "merge"}})
    )
    with pytest.raises(ConfigError, match=said):
        tiny.training_data(config)


@pytest.mark.parametrize("form", ["rec", "tar"])
def test_a_verification_set_is_converted_and_verified(
    tmp_path: Path, pairs: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["pack", "convert", str(pairs), "--to", form, "--out", str(out), "--workers=1"]) == 0
    assert f"{out} has its images, not its pairs" in capsys.readouterr().out
    source = assembly.open_held_out(out)
    assert source.labels.tolist() == [0, 0, 1, 2, 1, 1], "image 2 and image 5 are the same picture"
    assert source.read(5).tobytes() == tiny.encoded(1, 0)
    assert cli.main(["verify", str(pairs), "--fast", "--out", str(tmp_path / "q.tsv")]) == 0
    assert "all of 6 images can be used" in capsys.readouterr().out
