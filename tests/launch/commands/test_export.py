"""``partial-fc export``: what it writes of a run, what it says, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

import partial_fc
from data_pipeline.loader.dali_graph import ImageFormat
from data_pipeline.loader.image_loader import usable_batches
from launch import assembly, cli, train
from partial_fc.inference.pictures import pixels_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    content = tiny.tree(tiny.write_data(folder / "data"), folder / "run")
    assert train.main([str(tiny.write_config(folder / "config.yaml", content))]) == 0
    return folder / "run"


def test_a_run_is_written_with_its_facts_and_compared_on_its_held_out_images(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(run), "--unit-length", "--licence", "CC0"]) == 0
    said = capsys.readouterr().out
    model = partial_fc.load(run / "export" / "run.onnx")
    assert (model.facts.network, model.facts.input_size, model.facts.embedding_dim) == ("r18", tiny.SIZE, 16)
    assert (model.facts.objective, model.facts.identities, model.facts.step) == ("adacos", "12", "6")
    assert (model.facts.output, model.facts.licence) == ("embeddings of length 1", "CC0")
    assert "over 80 images" in said
    assert float(said.partition("largest cosine distance to the network: ")[2].partition(",")[0]) < 1e-6
    rates = [line.split("│")[2:4] for line in said.splitlines() if "rank-1" in line or "TAR" in line]
    assert len(rates) == 4
    assert all(network.strip() == file.strip() for network, file in rates)


def test_eight_bits_are_calibrated_on_the_runs_images(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(run), "--precision", "int8", "--check", "16", "--raw-pixels"]) == 0
    said = capsys.readouterr().out
    assert "over 16 images" in said
    assert 1e-8 < float(said.partition("largest cosine distance to the network: ")[2].partition(",")[0]) < 0.1
    assert partial_fc.load(run / "export" / "run-int8.onnx").facts.precision == "int8"


def test_a_file_of_weights_is_exported_without_a_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = next(run.glob("checkpoints/*/backbone.pt")), tmp_path / "net.safetensors"
    words = ["export", str(weights), "--format", "safetensors", "--out", str(out), "--input-size", str(tiny.SIZE)]
    assert cli.main(words) == 0
    assert "not compared with the network: give --images SET" in capsys.readouterr().out
    assert cli.main([*words, "--images", str(run.parent / "data" / "heldout")]) == 0
    assert "largest cosine distance to the network: " in capsys.readouterr().out
    names = [path for path in tmp_path.iterdir() if path.is_file()]
    assert names == [out], "nothing else is left beside it"


def test_a_run_whose_images_are_elsewhere_is_exported_and_not_compared(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved, symlinks=True)
    config = moved / "config.yaml"
    config.write_text(config.read_text().replace(str(run.parent / "data"), str(tmp_path / "not_here")))
    assert cli.main(["export", str(moved)]) == 0
    assert "not compared with the network: give --images SET" in capsys.readouterr().out
    assert cli.main(["export", str(moved), "--precision", "int8"]) == 2
    assert "--precision int8 is calibrated on images: give --images SET" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["latest", "step-00000006"])
def test_a_checkpoint_is_written_into_its_runs_folder(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(run.glob("checkpoints/**/*"))
    assert cli.main(["export", str(run / "checkpoints" / name), "--format", "safetensors"]) == 0
    assert "over 80 images" in capsys.readouterr().out, "the run's configuration is found"
    assert sorted(run.glob("checkpoints/**/*")) == before
    assert (run / "export" / "step-00000006.safetensors").is_file()


@pytest.mark.parametrize("words", [["a.v2"], ["."]])
def test_a_file_has_the_whole_name_of_its_run(
    run: Path, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "a.v2", symlinks=True)
    monkeypatch.chdir(tmp_path if words == ["a.v2"] else tmp_path / "a.v2")
    assert cli.main(["export", *words, "--format", "torch"]) == 0
    assert (tmp_path / "a.v2" / "export" / "a.v2.pt").is_file()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--precision", "int8", "--format", "pt2"], 2, "--precision int8 is for --format onnx alone"),
        (["--raw-pixels", "--format", "torch"], 3, "torch holds float32 weights alone"),
        (["--images", "gone"], 3, "gone"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    run: Path, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(run), *words]) == code
    assert said in capsys.readouterr().err


def test_pictures_by_pillow_are_those_of_the_loader(tmp_path: Path) -> None:
    """Of the size they are wanted in within a level, JPEG's decoders differ by so much; resized within three."""
    folder = tmp_path / "set" / "someone"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    rough = Image.fromarray(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    for number, side in enumerate((32, 32, 75, 20)):
        rough.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=95)
    source = assembly.open_held_out(tmp_path / "set")
    (batch,) = usable_batches(source, ImageFormat(32, 32), range(4), batch=4, bad={})
    loaded = (batch.images.numpy().transpose(0, 2, 3, 1) + 1) * 127.5
    by_pillow = pixels_of([folder / f"{number}.jpg" for number in range(4)], 32)
    furthest = np.abs(loaded - by_pillow).max((1, 2, 3))
    assert (furthest[:2] <= 1.01).all(), furthest
    assert (furthest[2:] <= 3.01).all(), furthest
