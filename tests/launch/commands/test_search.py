"""``partial-fc search``: the nearest identities of a picture, with and without FAISS, and their pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

from launch import cli
from partial_fc.backbones import backbone

IDENTITIES, ASKED = 20, 13  # and which of them is looked for


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with one damaged image before the one looked for, its embeddings in both forms, and a picture of it."""
    folder = tmp_path_factory.mktemp("searched")
    tiny.write_records(folder / "set" / "train.rec", range(IDENTITIES), damaged={0})
    for seed, name in enumerate(("net.pt", "other.pt")):
        torch.manual_seed(seed)
        torch.save(backbone("r18", width=8, embedding_dim=16, input_size=tiny.SIZE).state_dict(), folder / name)
    for out in ("set.npy", "set.parquet"):
        given = [folder / "net.pt", folder / "set", folder / out, "--input-size", tiny.SIZE, "--nproc", 1]
        assert cli.main(["embed", *map(str, given)]) == 0
    (folder / "asked.png").write_bytes(tiny.encoded(ASKED, 2))
    return folder


def search(folder: Path, file: str, *words: object) -> int:
    given = [folder / file, folder / "asked.png", "--model", folder / "net.pt", *words]
    return cli.main(["search", *map(str, given)])


def lines_of(said: str) -> list[list[str]]:
    found = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")]
    return [line for line in found if line[0].isdecimal()]


def test_a_picture_of_the_set_is_found_whatever_form_and_library(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    said = []
    for file in ("set.npy", "set.parquet"):
        for library in ("--faiss", "--no-faiss"):
            assert search(folder, file, "--nearest", 4, library) == 0
            said.append(lines_of(capsys.readouterr().out))
    place, cosine, label, image = said[0][0]
    assert (place, label) == ("1", str(ASKED))
    assert float(cosine) == pytest.approx(1, abs=1e-4)
    assert image.endswith(f"train.rec key {ASKED * tiny.IMAGES_PER_IDENTITY + 2 + 1}")
    assert len({line[2] for line in said[0]}) == len(said[0]) == 4, "an identity comes once"
    assert all(each == said[0] for each in said)


def test_the_sheet_shows_the_picture_and_its_neighbours(folder: Path, tmp_path: Path) -> None:
    assert search(folder, "set.npy", "--nearest", 3, "--sheet", tmp_path / "sheet.png") == 0
    picture = Image.open(tmp_path / "sheet.png").convert("L")
    asked, found = picture.crop((22, 34, 118, 130)), picture.crop((122, 34, 218, 130))
    assert asked.tobytes() == found.tobytes(), "the damaged image before it has no row, and shifts no other"
    assert len(set(asked.tobytes())) > 1
    assert search(folder, "set.parquet", "--sheet", tmp_path / "sheet.html") == 0
    page = (tmp_path / "sheet.html").read_text()
    assert f"asked.png: {ASKED} (1.00)" in page


def test_a_set_that_was_moved_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = ("--sheet", tmp_path / "sheet.png")
    tiny.write_records(tmp_path / "train.rec", range(30, 30 + IDENTITIES))
    assert search(folder, "set.npy", *sheet, "--set", tmp_path) == 2
    assert "is not the set that" in capsys.readouterr().err
    (tmp_path / "moved").symlink_to(folder / "set")
    assert search(folder, "set.npy", *sheet, "--set", tmp_path / "moved") == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--model", "other.pt"], 2, "is not the network that made"),
        (["--sheet", "sheet.gif"], 2, "name a file that ends in .html or .png"),
        (["--nearest", "0"], 3, "expected 1 or more"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    folder: Path, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(folder, "set.npy", words[0], folder / words[1] if "." in words[1] else words[1]) == code
    assert said in capsys.readouterr().err
