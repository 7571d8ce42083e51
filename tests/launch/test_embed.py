"""``partial-fc embed``: the same rows on any number of ranks, after a kill too; what is left out or refused."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import partial_fc
from launch import cli, embed
from launch.embedding.parts import PartFolder, Work
from partial_fc import World
from partial_fc.backbones import backbone
from partial_fc.inference.embedding_file import EmbeddingFile, Origin, companions

IDENTITIES, DAMAGED, PART = 100, {5, 200}, 128
IMAGES = IDENTITIES * tiny.IMAGES_PER_IDENTITY
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks, and a set of which two images are damaged."""
    folder = tmp_path_factory.mktemp("embedded")
    tiny.write_records(folder / "set" / "train.rec", range(IDENTITIES), damaged=DAMAGED)
    for seed, name in enumerate(("net.pt", "other.pt")):
        torch.manual_seed(seed)
        torch.save(backbone("r18", width=8, embedding_dim=16, input_size=tiny.SIZE).state_dict(), folder / name)
    return folder


def words(folder: Path, out: Path, *more: object) -> list[str]:
    given = [folder / "net.pt", folder / "set", out, "--input-size", tiny.SIZE, "--images-per-part", PART, *more]
    return list(map(str, given))


def embedded(folder: Path, out: Path, *more: object) -> int:
    return cli.main(["embed", *words(folder, out, *more), "--nproc", "1"])


@pytest.fixture(scope="module")
def whole(folder: Path) -> EmbeddingFile:
    assert embedded(folder, folder / "whole.npy") == 0
    return EmbeddingFile(folder / "whole.npy")


def all_rows(file: EmbeddingFile, block: int | None = None) -> np.ndarray:
    return np.concatenate([rows for _, rows in file.blocks(block)])


def test_an_image_that_cannot_be_used_has_no_row_and_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embedded(folder, tmp_path / "out.npy") == 0
    said = capsys.readouterr()
    assert f"left out: 2 of {IMAGES} images" in said.err
    assert all(f"train.rec key {sample + 1}" in said.err for sample in DAMAGED)
    file = EmbeddingFile(tmp_path / "out.npy")
    good = np.delete(np.arange(IMAGES), sorted(DAMAGED))
    assert (file.origin.samples() == good).all()
    assert (file.labels_N == good // tiny.IMAGES_PER_IDENTITY).all()
    assert [name.rpartition(" ")[2] for name in file.names(range(len(file))).values()] == [str(key + 1) for key in good]
    assert np.allclose(np.linalg.norm(all_rows(file), axis=1), 1, atol=1e-6)
    beside = {file.name for file in companions(tmp_path / "out.npy").values()}
    assert {path.name for path in tmp_path.iterdir()} == {"out.npy", *beside}, "no parts are left"


def test_rows_are_those_of_the_network_asked_picture_by_picture(folder: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "set" / "someone"
    pictures.mkdir(parents=True)
    for index in range(3):
        (pictures / f"{index}.png").write_bytes(tiny.encoded(7, index))
    given = [folder / "net.pt", tmp_path / "set", tmp_path / "out.parquet", "--input-size", tiny.SIZE, "--flip"]
    assert cli.main(["embed", *map(str, given), "--nproc", "1"]) == 0
    file = EmbeddingFile(tmp_path / "out.parquet")
    names = list(file.names(range(3)).values())
    assert names == [str(pictures / f"{index}.png") for index in range(3)]
    asked = partial_fc.load(folder / "net.pt", input_size=tiny.SIZE).embed(names, flip=True)
    assert np.abs(all_rows(file) - asked).max() < 1e-5


@pytest.mark.processes
def test_two_ranks_go_on_with_what_one_killed_process_left_and_no_digit_changes(
    folder: Path, whole: EmbeddingFile, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    command = tiny.command("embed", *words(folder, out), "--nproc", 1)
    process = subprocess.Popen(command, env=tiny.environment(), stdout=subprocess.DEVNULL)
    parts, end = tmp_path / "out.parquet.partial", time.monotonic() + PATIENCE_SECONDS
    while not (parts / "part-000000.npz").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = {part: part.stat().st_mtime_ns for part in parts.glob("part-*.npz")}
    assert 1 <= len(left) < -(-IMAGES // PART), "the kill came before the end"
    (parts / "part-000002.npz.1-1.partial").write_bytes(b"what a kill leaves")
    tiny.processes(2, rank, words(folder, out))
    file = EmbeddingFile(out)
    assert (all_rows(file) == all_rows(whole)).all()
    assert (all_rows(file, 100) == all_rows(whole, 7)).all(), "the size of a block is of no account"
    assert (file.labels_N == whole.labels_N).all()
    assert file.origin == whole.origin
    assert file.names(range(len(file))) == whole.names(range(len(file)))


def test_unfinished_embeddings_are_not_mixed_with_those_of_another_network_or_set(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npy"
    with monkeypatch.context() as patch:
        patch.setattr("launch.embedding.written._joined", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            embedded(folder, out)
    tiny.write_records(folder / "set2" / "train.rec", range(100, 100 + IDENTITIES))
    for network, images, said in (("other.pt", "set", "network was"), ("net.pt", "set2", "contents was")):
        given = [folder / network, folder / images, out, "--input-size", tiny.SIZE, "--images-per-part", PART]
        assert cli.main(["embed", *map(str, given), "--nproc", "1"]) == 3
        assert said in capsys.readouterr().err
    assert embedded(folder, out, "--flip") == 3
    assert "flip was False and is True" in capsys.readouterr().err
    assert embedded(folder, out) == 0, "the same command goes on"
    assert embedded(folder, out) == 3
    assert "out.npy exists and is never overwritten" in capsys.readouterr().err


def rank(given: list[str]) -> None:
    assert embed.main(given) == 0


def power_cut(*_: object) -> None:
    raise RuntimeError("power cut")


@pytest.mark.parametrize(
    ("out", "more", "code", "said"),
    [
        ("out.csv", (), 2, "name a file that ends in .parquet or .npy"),
        ("set/out.npy", (), 2, "lies in the set"),
        ("bad.npy", ("--images-per-part", "100"), 3, "expected a multiple of 128"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    folder: Path, out: str, more: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embedded(folder, folder / out, *more) == code
    assert said in capsys.readouterr().err


def test_a_file_that_is_no_embeddings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        EmbeddingFile(tmp_path / "gone.npy")
    (tmp_path / "other.parquet").write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match="no embeddings that partial-fc embed wrote"):
        EmbeddingFile(tmp_path / "other.parquet")


def test_ranks_have_a_day_for_their_parts(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[float]()

    def process_group(timeout_seconds: float = 600.0) -> AbstractContextManager[World]:
        asked.append(timeout_seconds)
        return nullcontext(World())

    monkeypatch.setattr(embed, "process_group", process_group)
    assert embed.main(words(folder, tmp_path / "out.npy")) == 0
    assert asked == [24 * 3600]


class OnOneDevice(World):
    """A world that, like NCCL, talks of tensors on its own device alone; the sum is brought back to be read."""

    def all_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        assert tensor.device.type == "meta"
        return torch.ones(tensor.shape)


def test_ranks_talk_of_missing_parts_on_their_device(tmp_path: Path) -> None:
    work = Work(Origin("abc", tiny.SIZE, False, "set", 300, "f00"), "files", "labels", PART)
    assert PartFolder(tmp_path / "out.npy", work).missing(OnOneDevice(), torch.device("meta")) == [0, 1, 2]
