"""What labels are called, and where that is looked up."""

from __future__ import annotations

from pathlib import Path

import pytest
from encoded import FORMATS

from data_pipeline.formats.by_path import source_at
from data_pipeline.formats.folders.folder import FolderSource
from data_pipeline.packing.synthetic import pack_synthetic
from data_pipeline.sets.identities import identity_names, label_names, write_identities


def test_names_lie_beside_the_records(tmp_path: Path) -> None:
    pack_synthetic(tmp_path, identities=3, images=1, size=16, first_identity=40, workers=1)
    source = source_at(tmp_path)
    expected = {"synthetic-0-40": 0, "synthetic-0-41": 1, "synthetic-0-42": 2}
    assert identity_names(source, tmp_path) == identity_names(source, tmp_path / "train.rec") == expected
    (tmp_path / "identities.tsv").write_text("0 Ann\n")
    with pytest.raises(ValueError, match="expected the columns label and identity"):
        identity_names(source, tmp_path)
    (tmp_path / "identities.tsv").unlink()
    assert identity_names(source, tmp_path) == identity_names(source, tmp_path / "train.rec") == {}


def test_a_source_that_knows_names_is_asked_first(tmp_path: Path) -> None:
    for name in ("Cid", "Ann Lee"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(FORMATS["JPEG"][1])
    assert identity_names(FolderSource(tmp_path), tmp_path) == {"Ann Lee": 0, "Cid": 1}


def test_names_that_are_no_text_come_back_as_they_were(tmp_path: Path) -> None:
    pack_synthetic(tmp_path, identities=2, images=1, size=16, workers=1)
    names = {0: "b\udcffb", 1: 'tab\t and "quotes"'}
    write_identities(tmp_path, [(label, name, 1) for label, name in names.items()])
    assert label_names(source_at(tmp_path), tmp_path) == names
