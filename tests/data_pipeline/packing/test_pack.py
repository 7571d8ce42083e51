from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.packing.folder import pack_folder
from data_pipeline.packing.omniglot import pack_omniglot
from data_pipeline.packing.synthetic import pack_synthetic
from data_pipeline.synthetic.people import identity_image
from launch import cli

Pixels = NDArray[np.uint8]
ALPHABETS = {"Futurama": 2, "Tengwar": 1}
DRAWINGS = 3


def encoded(pixels: Pixels, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=90)
    return buffer.getvalue()


def decoded(source: RecordSource, sample: int) -> Image.Image:
    return Image.open(io.BytesIO(source.read(sample).tobytes()))


def difference(image: Image.Image, pixels: Pixels) -> float:
    return float(np.abs(np.asarray(image).astype(float) - pixels).mean())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Three folders of 3, 1 and 2 images of 40 x 40, of several kinds; their names do not sort as they were made."""
    source = tmp_path / "people"
    for identity, (name, kinds) in enumerate(
        {"zoe": ("jpg", "png", "bmp"), "ann": ("png",), "bob": ("jpg", "jpg")}.items()
    ):
        (source / name).mkdir(parents=True)
        for index, kind in enumerate(kinds):
            content = encoded(identity_image(identity, index, size=40), {"jpg": "JPEG"}.get(kind, kind))
            (source / name / f"{index}.{kind}").write_bytes(content)
    return source


def test_folders_become_labels_in_the_order_of_their_names(people: Path, tmp_path: Path) -> None:
    (people / ".hidden").write_text("passed over")
    pack_folder(people, tmp_path / "out", size=24)
    source = RecordSource(tmp_path / "out" / "train.rec")
    np.testing.assert_array_equal(source.labels, [0, 1, 1, 2, 2, 2])
    assert (tmp_path / "out" / "property").read_text() == "3,24,24\n"
    assert (
        tmp_path / "out" / "identities.tsv"
    ).read_text() == "label\tidentity\timages\n0\tann\t1\n1\tbob\t2\n2\tzoe\t3\n"
    for sample, (identity, index) in enumerate([(1, 0), (2, 0), (2, 1), (0, 0), (0, 1), (0, 2)]):
        image = decoded(source, sample)
        original = Image.fromarray(identity_image(identity, index, size=40))
        assert (image.format, image.size) == ("JPEG", (24, 24))
        assert difference(image, np.asarray(original.resize((24, 24), Image.Resampling.LANCZOS))) < 8


def test_a_jpeg_keeps_its_bytes_without_a_size_and_a_png_becomes_a_jpeg(people: Path, tmp_path: Path) -> None:
    pack_folder(people, tmp_path / "out")
    source = RecordSource(tmp_path / "out" / "train.rec")
    assert source.read(1).tobytes() == (people / "bob" / "0.jpg").read_bytes()
    assert (decoded(source, 0).format, decoded(source, 0).size) == ("JPEG", (40, 40))
    assert (tmp_path / "out" / "property").read_text() == "3,40,40\n"


def test_a_wide_image_gives_its_middle_square(tmp_path: Path) -> None:
    pixels = np.zeros((30, 90, 3), np.uint8)
    pixels[:, 30:60] = 200
    (tmp_path / "source" / "one").mkdir(parents=True)
    (tmp_path / "source" / "one" / "wide.png").write_bytes(encoded(pixels, "png"))
    pack_folder(tmp_path / "source", tmp_path / "out", size=30)
    assert difference(decoded(RecordSource(tmp_path / "out" / "train.rec"), 0), pixels[:, 30:60]) < 1


def test_a_photograph_that_lies_on_its_side_is_set_upright(tmp_path: Path) -> None:
    upright = np.zeros((40, 40, 3), np.uint8)
    upright[:20] = 220
    (tmp_path / "source" / "one").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    Image.fromarray(np.rot90(upright)).save(tmp_path / "source" / "one" / "a.jpg", exif=exif, quality=95)
    pack_folder(tmp_path / "source", tmp_path / "out", size=20)
    assert difference(decoded(RecordSource(tmp_path / "out" / "train.rec"), 0), upright[::2, ::2]) < 4


@pytest.mark.parametrize("size", [None, 24])
def test_every_broken_image_is_named_and_nothing_is_written(people: Path, tmp_path: Path, size: int | None) -> None:
    whole = (people / "bob" / "1.jpg").read_bytes()
    (people / "bob" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (people / "zoe" / "1.png").write_bytes(b"no image at all")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(people / "ann" / "deep.png")
    with pytest.raises(ValueError, match="nothing was packed") as refusal:
        pack_folder(people, tmp_path / "out", size=size)
    named = ("bob/1.jpg cannot be read", "zoe/1.png cannot", "more than 8 bits")
    assert [name for name in named if name not in str(refusal.value)] == []
    assert contents(tmp_path / "out") == {}


def test_every_stray_file_and_empty_folder_is_named_and_nothing_is_written(people: Path, tmp_path: Path) -> None:
    (people / "ann" / "notes.txt").write_text("stray")
    (people / "empty").mkdir()
    with pytest.raises(ValueError, match=r"ann/notes\.txt is no image, .*empty has no images in it: mend"):
        pack_folder(people, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_a_long_list_of_complaints_is_cut_short(tmp_path: Path) -> None:
    for name in range(9):
        (tmp_path / "source" / str(name)).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"source/0 has no images in it.*and 4 more: mend"):
        pack_folder(tmp_path / "source", tmp_path / "out")


@pytest.mark.parametrize(
    ("prepared", "error", "message"),
    [
        ("missing", FileNotFoundError, "is not a folder"),
        ("empty", ValueError, "has no folders in it"),
        ("stray", ValueError, r"face\.jpg: expected folders only"),
    ],
)
def test_a_source_of_another_shape_is_refused(
    tmp_path: Path, prepared: str, error: type[Exception], message: str
) -> None:
    if prepared != "missing":
        (tmp_path / "source").mkdir()
    if prepared == "stray":
        (tmp_path / "source" / "face.jpg").write_bytes(encoded(identity_image(0, 0)))
    with pytest.raises(error, match=message):
        pack_folder(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("present", ["train.rec", "train.idx", "property", "identities.tsv"])
def test_what_is_there_is_never_overwritten(tmp_path: Path, present: str) -> None:
    (tmp_path / present).write_text("precious")
    with pytest.raises(FileExistsError, match=present):
        pack_synthetic(tmp_path, identities=1, images=1, size=16)
    assert contents(tmp_path) == {present: b"precious"}


def character_zip(path: Path, alphabets: dict[str, int]) -> dict[str, list[NDArray[np.bool_]]]:
    """Write random 1-bit drawings in Omniglot's layout; the drawings of each character."""
    drawings: dict[str, list[NDArray[np.bool_]]] = {}
    random = np.random.default_rng(len(alphabets))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images_background/", "")
        for alphabet, characters in alphabets.items():
            for character in range(1, characters + 1):
                name = f"{alphabet}/character{character:02}"
                bits = random.integers(0, 2, (DRAWINGS, 5, 5), np.uint8).astype(bool)
                drawings[name] = list(bits.repeat(21, axis=1).repeat(21, axis=2))
                for index, drawing in enumerate(drawings[name]):
                    buffer = io.BytesIO()
                    Image.fromarray(drawing).save(buffer, "png")
                    archive.writestr(f"images_background/{name}/0007_{index + 1:02}.png", buffer.getvalue())
    return drawings


@pytest.mark.parametrize("rotations", [True, False])
def test_a_turned_character_is_an_identity_of_its_own(tmp_path: Path, rotations: bool) -> None:
    drawings = character_zip(tmp_path / "a.zip", ALPHABETS)
    pack_omniglot([tmp_path / "a.zip"], tmp_path / "out", size=35, rotations=rotations)
    source = RecordSource(tmp_path / "out" / "train.rec")
    turns = 4 if rotations else 1
    np.testing.assert_array_equal(source.labels, np.repeat(np.arange(3 * turns), DRAWINGS))
    names = [line.split("\t")[1] for line in (tmp_path / "out" / "identities.tsv").read_text().splitlines()[1:]]
    for sample in range(len(source)):
        name, _, degrees = names[source.label(sample)].rpartition("/")
        drawing = Image.fromarray(drawings[name][sample % DRAWINGS]).convert("L").rotate(int(degrees))
        image = decoded(source, sample)
        assert (image.format, image.mode, image.size) == ("JPEG", "L", (35, 35))
        assert difference(image, np.asarray(drawing.resize((35, 35), Image.Resampling.BOX))) < 4


def test_the_characters_of_several_zips_are_counted_on(tmp_path: Path) -> None:
    character_zip(tmp_path / "a.zip", ALPHABETS)
    character_zip(tmp_path / "b.zip", {"Oriya": 2})
    pack_omniglot([tmp_path / "a.zip", tmp_path / "b.zip"], tmp_path / "out", rotations=False)
    assert RecordSource(tmp_path / "out" / "train.rec").num_classes == 5
    with pytest.raises(ValueError, match="expected each zip once"):
        pack_omniglot([tmp_path / "a.zip", tmp_path / "a.zip"], tmp_path / "twice")


def test_a_zip_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("photo.png", b"")
    with pytest.raises(ValueError, match=r"text\.zip cannot be read as a zip"):
        pack_omniglot([tmp_path / "text.zip"], tmp_path / "out")
    with pytest.raises(ValueError, match=r"other\.zip holds no images_"):
        pack_omniglot([tmp_path / "other.zip"], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="none"):
        pack_omniglot([tmp_path / "none.zip"], tmp_path / "out")


@pytest.mark.skipif("OMNIGLOT" not in os.environ, reason="OMNIGLOT names no folder with Omniglot's zips")
def test_omniglot_itself_has_964_characters_to_train_on_and_659_to_verify(tmp_path: Path) -> None:
    for name, characters in (("images_background", 964), ("images_evaluation", 659)):
        pack_omniglot([Path(os.environ["OMNIGLOT"], f"{name}.zip")], tmp_path / name, rotations=False)
        source = RecordSource(tmp_path / name / "train.rec")
        np.testing.assert_array_equal(source.labels, np.repeat(np.arange(characters), 20))


def test_synthetic_people_are_packed_as_they_are_drawn(tmp_path: Path) -> None:
    pack_synthetic(tmp_path / "out", identities=3, images=2, size=48, quality=95, seed=4, first_identity=10)
    source = RecordSource(tmp_path / "out" / "train.rec")
    np.testing.assert_array_equal(source.labels, [0, 0, 1, 1, 2, 2])
    for sample in range(6):
        picture = identity_image(10 + sample // 2, sample % 2, size=48, seed=4)
        assert decoded(source, sample).size == (48, 48)
        assert difference(decoded(source, sample), picture) < 8
    assert "2\tsynthetic-4-12\t2\n" in (tmp_path / "out" / "identities.tsv").read_text()


@pytest.mark.processes
def test_several_processes_pack_the_same_bytes_as_one(tmp_path: Path) -> None:
    for workers in (1, 2):
        pack_synthetic(tmp_path / str(workers), identities=20, images=2, size=24, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


@pytest.mark.parametrize("asked", [{"identities": 0}, {"images": 0}, {"size": 0}, {"quality": 101}])
def test_an_impossible_set_is_refused_before_anything_is_written(tmp_path: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        pack_synthetic(tmp_path / "out", **{"identities": 1, "images": 1, **asked})
    assert not (tmp_path / "out").exists()


def test_the_command_packs_and_says_in_one_line_why_it_does_not(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    character_zip(tmp_path / "a.zip", ALPHABETS)
    commands = {
        "folder": ["folder", str(people), "--size", "20"],
        "omniglot": ["omniglot", str(tmp_path / "a.zip"), "--no-rotations"],
        "synthetic": ["synthetic", "--identities=2", "--images=3", "--first-identity=5", "--seed=1", "--quality=80"],
    }
    for name, words in commands.items():
        assert cli.main(["pack", *words, "--out", str(tmp_path / name)]) == 0
    counts = [len(RecordSource(tmp_path / name / "train.rec")) for name in commands]
    assert counts == [6, 3 * DRAWINGS, 6]
    capsys.readouterr()
    assert cli.main(["pack", *commands["folder"], "--out", str(tmp_path / "folder")]) == 3
    assert capsys.readouterr().err == (
        f"partial-fc: {tmp_path}/folder/train.rec exists and is not overwritten: remove it or choose another folder\n"
    )


PACK = """
import signal, sys
from pathlib import Path
from data_pipeline.packing.synthetic import pack_synthetic
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    pack_synthetic(Path(sys.argv[1]), identities=100000, images=20, size=40, workers=1)
"""


@pytest.mark.processes
@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_command_can_be_given_again(tmp_path: Path, is_there: bool, kind: signal.Signals) -> None:
    out = tmp_path / "sets" / "out"
    if is_there:
        out.mkdir(parents=True)
    work = out / ".packing" if is_there else out.with_name("out.packing")
    with subprocess.Popen([sys.executable, "-c", PACK, str(out)], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(file.stat().st_size for file in work.glob("train.rec*")):
            time.sleep(0.05)
        with pytest.raises(ValueError, match="another process is writing here"):
            pack_synthetic(out, identities=1, images=2, size=24)
        process.send_signal(kind)
    assert process.returncode
    assert not (out / "train.rec").exists()
    if kind == signal.SIGINT:
        assert not work.exists()
        assert out.exists() == is_there
    pack_synthetic(out, identities=1, images=2, size=24)
    assert sorted(file.name for file in out.iterdir()) == ["identities.tsv", "property", "train.idx", "train.rec"]
    assert sorted((tmp_path / "sets").iterdir()) == [out]


def test_make_packs_a_set_whose_folder_an_interruption_left_empty(tmp_path: Path) -> None:
    (tmp_path / "data" / "synthetic" / "train").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    makefile = Path(__file__).parents[3] / "Makefile"
    made = subprocess.run(["make", "-n", "-f", makefile, "train"], cwd=tmp_path, capture_output=True, text=True)
    assert "--out data/synthetic/train\n" in made.stdout
    assert "--out data/synthetic/heldout\n" in made.stdout
